//! Reading, writing, removing, expiring, over generations and restarts.

use tierkeep::{Backend, CacheKey, CacheValue, DeleteStatus, ErrorKind, KeyPart, Timestamp};

use crate::harness::{Disk, START, assert_kind, block_on, entry, key};

#[test]
fn what_cannot_work_is_refused_when_built() {
    use tierkeep::backend::DiskBackend;
    for builder in [
        DiskBackend::builder("/tmp/x").capacity_bytes(0),
        DiskBackend::builder("/tmp/x").capacity_bytes((1 << 20) - 1),
        DiskBackend::builder("/tmp/x").permits(0),
        DiskBackend::builder(""),
    ] {
        assert_kind(builder.build(), ErrorKind::Config);
    }
}

#[test]
fn entries_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    disk.put(&key("user", 1), "one", 1);
    disk.put(&key("user", 2), "two", 2);
    assert_eq!(disk.remove(&key("user", 2)), DeleteStatus::Deleted(1));
    disk.close(dir.path());
    let disk = Disk::open(dir.path());
    assert_eq!(disk.get(&key("user", 1)).unwrap(), "one");
    assert_eq!(disk.get(&key("user", 2)), None);
    assert_eq!(block_on(disk.backend.stats()).unwrap().epoch, 2);
}

#[test]
fn the_directory_is_made_when_opened_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let disk = Disk::closed(&path, |b| b);
    assert!(!path.exists());
    assert_kind(disk.try_get(&key("user", 1)), ErrorKind::Unavailable);
    disk.start().unwrap();
    disk.start().unwrap();
    assert!(path.exists());
    assert_eq!(block_on(disk.backend.stats()).unwrap().epoch, 1, "opening it again changes nothing");
}

#[test]
fn an_entry_comes_back_with_its_stamps() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    let (at, stale) = (Timestamp::from_millis(START + 50), Timestamp::from_millis(START + 20));
    let value = CacheValue::new("v".into(), Some(at), Some(stale));
    block_on(disk.backend.write(&key("user", 1), value.clone())).unwrap();
    assert_eq!(block_on(disk.backend.read(&key("user", 1))).unwrap(), Some(value));
    disk.put(&key("user", 1), "w", 9);
    let entry = disk.entry(&key("user", 1)).unwrap();
    assert_eq!((entry.meta.stamp.time, entry.meta.expire, entry.inherited), (9, None, false));
}

#[test]
fn entries_of_an_earlier_opening_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    disk.put(&key("user", 1), "one", u64::MAX);
    assert!(!disk.entry(&key("user", 1)).unwrap().inherited);
    disk.close(dir.path());
    let disk = Disk::open(dir.path());
    assert!(disk.entry(&key("user", 1)).unwrap().inherited);
    disk.put(&key("user", 1), "one", 1);
    assert!(!disk.entry(&key("user", 1)).unwrap().inherited);
}

#[test]
fn life_ends_to_the_millisecond() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    disk.put_until(&key("user", 1), "v", START + 1000);
    disk.threads.set_wall(START + 999);
    assert_eq!(disk.get(&key("user", 1)).unwrap(), "v");
    disk.threads.set_wall(START + 1000);
    assert_eq!(disk.get(&key("user", 1)), None);
    assert_eq!(disk.remove(&key("user", 1)), DeleteStatus::Missing);
    // Removed while expired, it stays away even if the clock steps back.
    disk.threads.set_wall(START);
    assert_eq!(disk.get(&key("user", 1)), None);
}

#[test]
fn a_dead_write_hides_what_came_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    for generations in [0, 2] {
        disk.put(&key("user", 1), "old", 1);
        disk.advance_generations(generations);
        disk.put_until(&key("user", 1), "dead", START);
        assert_eq!(disk.get(&key("user", 1)), None);
    }
}

#[test]
fn a_dead_write_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20));
    disk.put(&key("user", 1), "old", 1);
    // Stored, either would be refused as larger than the tier: the one over an entry, the other over nothing.
    for id in [1, 2] {
        disk.put_until(&key("user", id), vec![0; 2 << 20], START);
    }
    // Over nothing not even a tombstone is stored: these would fill more than a generation. (Generations are counted,
    // as `bytes` also moves with what fjall writes out in the background.)
    let dead = (3..4_000).map(|id| (key("user", id), entry("dead", 1, Some(START)))).collect();
    for answer in block_on(disk.backend.write_entries(dead)) {
        answer.unwrap();
    }
    assert_eq!(block_on(disk.backend.stats()).unwrap().generations, 1);
    assert_eq!(disk.get(&key("user", 1)), None);
}

#[test]
fn the_newest_record_wins_over_generations_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(dir.path());
    let (overwritten, removed, expired) = (key("user", 1), key("user", 2), key("user", 3));
    for key in [&overwritten, &removed, &expired] {
        disk.put(key, "old", 5);
    }
    disk.advance_generations(2);
    disk.put(&overwritten, "new", 1); // Arrival decides, not the stamp.
    assert_eq!(disk.remove(&removed), DeleteStatus::Deleted(1));
    assert_eq!(disk.remove(&removed), DeleteStatus::Missing);
    disk.put_until(&expired, "short", START + 10);
    disk.advance_generations(1);
    disk.threads.set_wall(START + 10);
    for _ in 0..2 {
        assert_eq!(disk.get(&overwritten).unwrap(), "new");
        assert_eq!(disk.get(&removed), None);
        assert_eq!(disk.get(&expired), None, "the older record must not show through the expired one");
        let threads = disk.threads.clone();
        disk.close(dir.path());
        disk = Disk::closed(dir.path(), |b| b.capacity_bytes(8 << 20));
        disk.threads = threads;
        disk.start().unwrap();
    }
}

#[test]
fn of_one_key_twice_in_a_batch_the_last_wins() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    let entries = (0..20).map(|i| (key("user", i % 3), entry(format!("v{i}"), i, None))).collect();
    for answer in block_on(disk.backend.write_entries(entries)) {
        answer.unwrap();
    }
    for (id, value) in [(0, "v18"), (1, "v19"), (2, "v17")] {
        assert_eq!(disk.get(&key("user", id)).unwrap(), value);
    }
    let keys = [key("user", 0), key("user", 0), key("user", 9)];
    let answers: Vec<_> = block_on(disk.backend.remove_many(&keys)).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [DeleteStatus::Deleted(1), DeleteStatus::Missing, DeleteStatus::Missing]);
}

#[test]
fn a_batch_answers_in_order_and_one_bad_entry_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    let long = CacheKey::new("user", 1, [KeyPart::new("id", Some("x".repeat(70_000)))]);
    let entries = vec![
        (key("user", 1), entry("one", 1, None)),
        (long.clone(), entry("long", 1, None)),
        (key("user", 2), entry(vec![0; 9 << 20], 1, None)),
        (key("user", 3), entry("three", 1, None)),
    ];
    let kinds: Vec<_> = block_on(disk.backend.write_entries(entries))
        .into_iter()
        .map(|answer| answer.err().map(|e| e.kind()))
        .collect();
    assert_eq!(kinds, [None, Some(ErrorKind::TooLarge), Some(ErrorKind::TooLarge), None]);
    let keys = [key("user", 3), long, key("user", 2), key("user", 1)];
    let read = block_on(disk.backend.read_many(&keys));
    let read: Vec<_> = read.into_iter().map(|r| r.map(|v| v.map(CacheValue::into_inner))).collect();
    assert_eq!(read[0].as_ref().unwrap().as_deref(), Some(&b"three"[..]));
    assert_eq!(read[1].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(read[2].as_ref().unwrap(), &None);
    assert_eq!(read[3].as_ref().unwrap().as_deref(), Some(&b"one"[..]));
}

#[test]
fn empty_values_and_the_longest_keys_are_entries_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path());
    let frame = "user:v1:id=".len();
    let longest = |n: usize| CacheKey::new("user", 1, [KeyPart::new("id", Some("x".repeat(n - frame)))]);
    let key = longest(65_535);
    assert_eq!(key.as_str().len(), 65_535);
    disk.put(&key, "", 1);
    assert_eq!(disk.get(&key).unwrap(), "");
    assert_kind(disk.try_put(&longest(65_536), "", 1, None), ErrorKind::TooLarge);
    assert_kind(disk.try_get(&longest(65_536)), ErrorKind::TooLarge);
}
