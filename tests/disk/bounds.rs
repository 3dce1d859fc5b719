//! How much the tier takes.

use tierkeep::{Backend, ErrorKind};

use crate::harness::{Disk, START, assert_kind, block_on, disk_usage, entry, key};

/// fjall's active journal of 64 MiB and one that waits for its last buffer to be written out.
const JOURNALS: u64 = 128 << 20;

/// A generator of numbers in no order (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn noise(state: &mut u64, length: usize) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|_| random(state).to_le_bytes()).take(length).collect()
}

#[test]
fn ten_times_the_capacity_of_random_keys_stays_within_it() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 16 << 20;
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(capacity));
    let mut state = 1;
    let mut written = 0;
    let mut recent = Vec::new();
    while written < 10 * capacity {
        recent.clear();
        for _ in 0..64 {
            let length = 500 + usize::try_from(random(&mut state) % 1000).unwrap();
            let key = key("page", random(&mut state));
            written += length as u64;
            recent.push((key, entry(noise(&mut state, length), 1, None)));
        }
        for answer in block_on(disk.backend.write_entries(recent.clone())) {
            answer.unwrap();
        }
        let stats = block_on(disk.backend.stats()).unwrap();
        assert!(stats.bytes <= capacity, "{stats:?} after {written} bytes");
    }
    for (key, _) in &recent {
        assert!(disk.get(key).is_some(), "what was written last is still there");
    }
    let stats = block_on(disk.backend.stats()).unwrap();
    assert!(stats.bytes > capacity / 2 && stats.generations >= 7, "it uses its room: {stats:?}");
    disk.close(dir.path());
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(capacity));
    let stats = block_on(disk.backend.stats()).unwrap();
    assert!(stats.bytes > capacity / 2 && stats.bytes <= capacity, "recounted when opened: {stats:?}");
    disk.close(dir.path());
    let usage = disk_usage(dir.path());
    println!("{usage} bytes on the disk");
    assert!(usage <= capacity + JOURNALS, "{usage} bytes on the disk");
}

#[test]
fn overwriting_one_key_for_ever_stays_within_the_capacity() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 1 << 20;
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(capacity));
    let mut state = 1;
    for i in 0..400 {
        disk.put(&key("page", 1), noise(&mut state, 20_000), i);
        disk.remove(&key("page", 1));
    }
    assert!(block_on(disk.backend.stats()).unwrap().bytes <= capacity);
    assert!(disk_usage(dir.path()) <= capacity + JOURNALS);
}

#[test]
fn a_value_larger_than_a_generation_has_one_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let capacity: u64 = 8 << 20;
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(capacity));
    disk.advance_generations(7);
    let large = vec![1; 5 << 20];
    disk.put(&key("blob", 1), large.clone(), 1);
    assert_eq!(disk.get(&key("blob", 1)).unwrap(), large);
    assert!(block_on(disk.backend.stats()).unwrap().bytes <= capacity);
    disk.put(&key("user", 1), "small", 1);
    assert!(disk.get(&key("blob", 1)).is_some());
    disk.put(&key("blob", 2), large.clone(), 1);
    assert!(disk.get(&key("blob", 2)).is_some());
    assert_eq!(disk.get(&key("blob", 1)), None, "both do not fit");
    assert!(block_on(disk.backend.stats()).unwrap().bytes <= capacity);
    assert_kind(disk.try_put(&key("blob", 3), vec![1; 8 << 20], 1, None), ErrorKind::TooLarge);
}

#[test]
fn the_oldest_go_first_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20));
    disk.put(&key("user", 1), "old", 1);
    disk.advance_generations(4);
    disk.put(&key("user", 2), "young", 1);
    assert!(disk.get(&key("user", 1)).is_some());
    disk.advance_generations(5);
    assert_eq!(disk.get(&key("user", 1)), None);
    assert!(disk.get(&key("user", 2)).is_some());
    disk.advance_generations(9);
    assert_eq!(disk.get(&key("user", 2)), None);
}

#[test]
fn generations_whose_entries_have_all_expired_go_early() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(8 << 20));
    for generation in 0..5 {
        // Closed generations of one entry each, living longer and longer.
        disk.put_until(&key("user", generation), vec![1; 1_000_000], START + 1000 + generation * 1000);
    }
    let count = |disk: &Disk| block_on(disk.backend.stats()).unwrap().generations;
    assert_eq!(count(&disk), 5);
    let threads = disk.threads.clone();
    disk.close(dir.path());
    let mut disk = Disk::closed(dir.path(), |b| b.capacity_bytes(8 << 20));
    disk.threads = threads;
    disk.start().unwrap();
    disk.threads.set_wall(START + 2999);
    block_on(disk.backend.flush()).unwrap();
    assert_eq!(count(&disk), 3);
    disk.threads.set_wall(START + 3000);
    disk.put(&key("user", 9), "a write notices too", 1);
    assert_eq!(count(&disk), 2);
    assert!(disk.get(&key("user", 3)).is_some());
}

#[test]
fn hundreds_of_generations_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 1 << 20;
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(capacity));
    for round in 0..200 {
        disk.advance_generations(1);
        // What was written eight generations ago is in a keyspace that has been used again since.
        disk.put(&key("round", round), format!("{round}"), 1);
        if let Some(long_ago) = round.checked_sub(12) {
            assert_eq!(disk.get(&key("round", long_ago)), None);
        }
        assert_eq!(
            disk.get(&key("round", round.saturating_sub(4))).unwrap(),
            format!("{}", round.saturating_sub(4))
        );
    }
    // Without the journal, which is recycled in pieces of 64 MiB.
    let tables = disk_usage(&dir.path().join("data/keyspaces"));
    assert!(tables <= 3 * capacity, "{tables} bytes in tables");
    disk.close(dir.path());
    let disk = Disk::with(dir.path(), |b| b.capacity_bytes(capacity));
    assert_eq!(disk.get(&key("round", 199)).unwrap(), "199");
    assert_eq!(disk.get(&key("round", 180)), None);
}
