//! Damaged files: an error or intact values, never a panic and never a wrong value.

use std::path::Path;

use tierkeep::{Backend, CacheValue, ErrorKind};

use crate::harness::{Disk, assert_kind, block_on, child, files, key, told};

const ENTRIES: u64 = 300;

fn value(id: u64) -> Vec<u8> {
    format!("value {id} ").repeat(40).into_bytes()
}

/// A store with tables, several generations, a clear mark's keyspace and a journal with entries in it.
fn fill(directory: &Path) {
    let disk = Disk::with(directory, |b| b.capacity_bytes(1 << 20));
    for id in 0..ENTRIES {
        disk.put(&key("user", id), value(id), 1);
    }
    block_on(disk.backend.flush()).unwrap();
    disk.close(directory);
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, &target).unwrap();
    }
}

#[test]
fn any_file_cut_or_overwritten_is_an_error_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original");
    fill(&original);
    // In a process of its own: an abort must not take the other tests along, and must be seen.
    let output = child("damage::child_damages_each_file", &original, "").wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("all cases done"), "{text}\n{errors}");
}

#[test]
#[ignore = "run by any_file_cut_or_overwritten_is_an_error_or_harmless"]
fn child_damages_each_file() {
    let Some((original, _)) = told() else { return };
    let mut outcomes = [0; 3];
    for file in files(&original) {
        let name = file.strip_prefix(&original).unwrap().to_owned();
        if name.ends_with("LOCK") || name.ends_with("lock") {
            continue;
        }
        let length = std::fs::metadata(&file).unwrap().len();
        for case in
            ["empty", "half", "zeroes", "noise at start", "noise in the middle", "noise at end", "gone"]
        {
            let scratch = tempfile::tempdir_in(original.parent().unwrap()).unwrap();
            copy(&original, scratch.path());
            harm(&scratch.path().join(&name), length, case);
            let outcome = inspect(scratch.path(), &format!("{}: {case}", name.display()));
            outcomes[outcome] += 1;
        }
    }
    println!("refused to open: {}, read errors: {}, harmless: {}", outcomes[0], outcomes[1], outcomes[2]);
    assert!(outcomes[0] > 0, "damage was never noticed");
    println!("all cases done");
}

fn harm(file: &Path, length: u64, case: &str) {
    use std::os::unix::fs::FileExt;
    let open = || std::fs::OpenOptions::new().write(true).open(file).unwrap();
    let noise: Vec<u8> = (0..64_u8).map(|i| i.wrapping_mul(37).wrapping_add(11)).collect();
    match case {
        "empty" => open().set_len(0).unwrap(),
        "half" => open().set_len(length / 2).unwrap(),
        "zeroes" => open().write_all_at(&vec![0; usize::try_from(length.min(4096)).unwrap()], 0).unwrap(),
        "noise at start" => open().write_all_at(&noise, 0).unwrap(),
        "noise in the middle" => open().write_all_at(&noise, length / 2).unwrap(),
        "noise at end" => open().write_all_at(&noise, length.saturating_sub(64)).unwrap(),
        _ => std::fs::remove_file(file).unwrap(),
    }
}

/// 0: refused to open, 1: some reads failed, 2: all reads were right or missing.
fn inspect(directory: &Path, case: &str) -> usize {
    println!("{case}");
    let disk = Disk::closed(directory, |b| b.capacity_bytes(1 << 20));
    if let Err(error) = disk.start() {
        println!("  {error}");
        assert!(error.to_string().contains(directory.to_str().unwrap()), "{case}: {error}");
        assert_eq!(error.kind(), ErrorKind::Backend, "{case}: damage is told from a busy directory: {error}");
        let disk = Disk::with(directory, |b| b.capacity_bytes(1 << 20).reset_if_damaged(true));
        disk.put(&key("user", 1), "a fresh start", 1);
        assert_eq!(block_on(disk.backend.stats()).unwrap().moved_aside.len(), 1);
        disk.close(directory);
        return 0;
    }
    let keys: Vec<_> = (0..ENTRIES).map(|id| key("user", id)).collect();
    let mut failed = false;
    for (id, answer) in block_on(disk.backend.read_many(&keys)).into_iter().enumerate() {
        match answer {
            Ok(Some(read)) => assert_eq!(CacheValue::into_inner(read), value(id as u64), "{case}"),
            Ok(None) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Panicked, "{case}: {error:?}");
                failed = true;
            }
        }
    }
    // It still takes writes, or says why not.
    if let Err(error) = disk.try_put(&key("user", 1), "new", 2, None) {
        assert_ne!(error.kind(), ErrorKind::Panicked, "{case}: {error:?}");
    }
    disk.close(directory);
    if failed { 1 } else { 2 }
}

#[test]
fn a_damaged_store_says_so_and_is_moved_aside_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=2 {
        fill(dir.path());
        std::fs::write(dir.path().join("data/version"), "nonsense").unwrap();
        let disk = Disk::closed(dir.path(), |b| b.capacity_bytes(1 << 20));
        let message = assert_kind(disk.start(), ErrorKind::Backend);
        assert!(message.contains("damaged") && message.contains("reset_if_damaged"), "{message}");
        assert_kind(disk.try_get(&key("user", 1)), ErrorKind::Unavailable);
        let disk = Disk::with(dir.path(), |b| b.capacity_bytes(1 << 20).reset_if_damaged(true));
        assert_eq!(disk.get(&key("user", 1)), None);
        let aside = dir.path().join(format!("damaged-{round}"));
        assert_eq!(block_on(disk.backend.stats()).unwrap().moved_aside, std::slice::from_ref(&aside));
        assert!(aside.join("version").exists());
    }
}

#[test]
fn foreign_directories_among_the_keyspaces_are_damage_not_an_abort() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    std::fs::create_dir(dir.path().join("data/keyspaces/lost+found")).unwrap();
    let disk = Disk::closed(dir.path(), |b| b);
    let message = assert_kind(disk.start(), ErrorKind::Backend);
    assert!(message.contains("lost+found"), "{message}");
}
