//! Many threads at once, over generations, clears and reopenings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tierkeep::Backend;
use tierkeep::backend::Scope;

use crate::harness::{Disk, block_on, key, stamp};

const KEYS: usize = 4;
const WRITES: u64 = 600;

/// Per key the highest version whose write, removal or clear had been confirmed.
type Confirmed = [AtomicU64; KEYS];

#[test]
fn no_reader_ever_sees_an_older_value_than_was_confirmed_before_it_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20)));
    let confirmed: Confirmed = Default::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..KEYS)
            .map(|id| {
                scope.spawn({
                    let (disk, confirmed) = (&disk, &confirmed);
                    move || write(disk, id, &confirmed[id])
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for (id, confirmed) in confirmed.iter().enumerate() {
                        let floor = confirmed.load(Ordering::SeqCst);
                        if let Some(value) = disk.get(&key("user", id as u64)) {
                            let version = u64::from_le_bytes(value[..8].try_into().unwrap());
                            assert!(version >= floor, "key {id}: {version} after {floor}");
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                block_on(disk.backend.reopen()).unwrap();
                block_on(disk.backend.flush()).unwrap();
            }
        });
        for writer in writers {
            // Told to the others even if it failed, so that the test ends.
            let result = writer.join();
            if result.is_err() {
                done.store(true, Ordering::SeqCst);
            }
            result.unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(disk.backend.running_jobs(), 0);
}

/// Versions go up by one with each mutation; a version that was removed or cleared must not be seen after it either,
/// so a removal confirms the version after the one that it removed.
fn write(disk: &Disk, id: usize, confirmed: &AtomicU64) {
    let key = key("user", id as u64);
    for version in 1..=WRITES {
        if version % 5 == 0 {
            disk.remove(&key);
        } else if version % 97 == 0 {
            // Stamps of all writers grow together closely enough: a clear may take others' newer writes along, which
            // reads as a miss.
            block_on(disk.backend.clear(&Scope::All, stamp(version))).unwrap();
        } else {
            let mut value = version.to_le_bytes().to_vec();
            value.resize(usize::try_from(200 + version * 13 % 3000).unwrap(), 0);
            disk.put(&key, value, version);
        }
        confirmed.store(version, Ordering::SeqCst);
    }
}
