//! Clears: exact, remembered, and independent of clocks across restarts.

use std::sync::Arc;

use tierkeep::backend::Scope;
use tierkeep::{Backend, CacheValue};

use crate::harness::{Disk, block_on, key, stamp};

fn clear(disk: &Disk, scope: &Scope, time: u64) {
    block_on(disk.backend.clear(scope, stamp(time))).unwrap();
}

fn users() -> Scope {
    Scope::Prefix(Arc::from("user"))
}

#[test]
fn a_prefix_is_cleared_and_nothing_else_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(dir.path());
    disk.put(&key("user", 1), "u", 5);
    disk.put(&key("users", 1), "another region that begins alike", 5);
    clear(&disk, &users(), 10);
    disk.put(&key("user", 2), "after", 11);
    disk.put(&key("user", 3), "late, but stamped before the clear", 10);
    for _ in 0..2 {
        assert_eq!(disk.get(&key("user", 1)), None);
        assert!(disk.get(&key("users", 1)).is_some());
        assert!(disk.get(&key("user", 2)).is_some());
        assert_eq!(disk.get(&key("user", 3)), None);
        disk.close(dir.path());
        disk = Disk::open(dir.path());
    }
}

#[test]
fn all_is_cleared_also_after_a_restart_and_its_room_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(dir.path());
    disk.put(&key("user", 1), "u", 5);
    disk.advance_generations(3);
    disk.put(&key("user", 2), "late", 21);
    clear(&disk, &Scope::All, 20);
    disk.put(&key("user", 3), "after", 22);
    for _ in 0..2 {
        assert_eq!(disk.get(&key("user", 1)), None);
        assert!(disk.get(&key("user", 2)).is_some(), "its stamp is after the clear's");
        assert!(disk.get(&key("user", 3)).is_some());
        disk.close(dir.path());
        disk = Disk::open(dir.path());
    }
    clear(&disk, &Scope::All, 1);
    let stats = block_on(disk.backend.stats()).unwrap();
    assert_eq!((stats.generations, stats.bytes), (1, 0), "every record was of an earlier opening");
}

#[test]
fn entries_of_an_earlier_opening_are_cleared_whatever_their_stamps_say() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    disk.put(&key("user", 1), "far in the future", u64::MAX);
    disk.put(&key("page", 1), "far in the future", u64::MAX);
    disk.close(dir.path());
    let disk = Disk::open(dir.path());
    assert!(disk.get(&key("user", 1)).is_some());
    clear(&disk, &users(), 1);
    assert_eq!(disk.get(&key("user", 1)), None);
    assert!(disk.get(&key("page", 1)).is_some());
    disk.put(&key("user", 1), "new", 2);
    assert!(disk.get(&key("user", 1)).is_some());
    disk.close(dir.path());
    // And a clear of an earlier opening hides nothing that a later one writes, even if the clock has gone back.
    let disk = Disk::open(dir.path());
    disk.put(&key("user", 2), "clock went back", 0);
    assert!(disk.get(&key("user", 1)).is_some());
    assert!(disk.get(&key("user", 2)).is_some());
}

#[test]
fn a_clear_does_not_bring_back_what_a_cleared_record_had_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    // The older record has the later stamp, and so is not covered by the clear itself.
    disk.put(&key("user", 1), "overwritten", 30);
    disk.advance_generations(1);
    disk.put(&key("user", 1), "cleared", 10);
    disk.put(&key("user", 2), "removed", 30);
    disk.advance_generations(1);
    disk.remove(&key("user", 2));
    clear(&disk, &Scope::All, 20);
    assert_eq!(disk.get(&key("user", 1)), None);
    assert_eq!(disk.get(&key("user", 2)), None);
}

#[test]
fn writes_without_stamps_are_cleared_in_the_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    let write = |id| {
        let value = CacheValue::new("v".into(), None, None);
        block_on(disk.backend.write(&key("user", id), value)).unwrap();
    };
    write(1);
    clear(&disk, &users(), 0);
    write(2);
    assert_eq!(disk.get(&key("user", 1)), None);
    assert!(disk.get(&key("user", 2)).is_some());
    clear(&disk, &Scope::All, 0);
    assert_eq!(disk.get(&key("user", 2)), None);
    write(2);
    assert!(disk.get(&key("user", 2)).is_some());
}

#[test]
fn clears_survive_the_loss_of_the_generations_they_hid() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20));
    disk.put(&key("user", 1), "old", 5);
    clear(&disk, &users(), 10);
    disk.close(dir.path());
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20));
    assert_eq!(disk.get(&key("user", 1)), None);
    disk.advance_generations(12);
    disk.put(&key("user", 1), "new", 1);
    disk.close(dir.path());
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20));
    assert_eq!(disk.get(&key("user", 1)).unwrap(), "new");
}
