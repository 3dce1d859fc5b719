//! The journal's files under damage of every kind, on real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::tests::scratch;
use super::*;
use crate::tier::message::Change;
use crate::value::{Entry, Meta, Payload, Raw, Stamp, Timestamp};

fn key(id: u64) -> CacheKey {
    CacheKey::from_canonical(format!("user:v1:id={id}"))
}

fn record(id: u64, time: u64, value: &str) -> Record {
    let stamp = Stamp { time, node: 1 };
    let meta = Meta { stamp, ..Meta::default() };
    let payload = Payload::Bytes(Raw::copy_from_slice(value.as_bytes()));
    let change = Change::Set(Entry::new(payload, meta));
    Record { key: key(id), stamp, change, accepted: Timestamp::from_millis(time) }
}

fn put(number: u64, record: Record) -> (CacheKey, Option<(u64, Record)>) {
    (record.key.clone(), Some((number, record)))
}

fn value(record: &Record) -> Option<String> {
    match &record.change {
        Change::Set(Entry { payload: Payload::Bytes(bytes), .. }) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

fn commit(store: &Store, changes: Vec<(CacheKey, Option<(u64, Record)>)>, notes: Notes) {
    store.commit(&Batch { changes, notes, sync: true }).unwrap();
}

/// Per id the values it ever had, oldest first; the last is what must be read back from a sound store. `None`: settled.
type History = BTreeMap<u64, Vec<Option<String>>>;

/// A store with 300 records in tables and 300 in the log, a third of them overwritten, a third forgotten.
fn fill(directory: &Path) -> History {
    let (store, _) = Store::open(directory).unwrap();
    let mut history = History::new();
    let mut number = 0;
    for half in 0..2 {
        for round in 0..2 {
            for first in (half * 300..(half + 1) * 300_u64).step_by(10) {
                let mut changes = Vec::new();
                let mut settled = Vec::new();
                for id in first..first + 10 {
                    number += 1;
                    let values = history.entry(id).or_default();
                    match (round, id % 3) {
                        (0, _) | (1, 1) => {
                            let text = format!("value {id} {round} {}", "x".repeat(60));
                            changes.push(put(number, record(id, number, &text)));
                            values.push(Some(text));
                        }
                        (_, 2) => {
                            changes.push((key(id), None));
                            settled.push((key(id).fingerprint(), number - 1));
                            values.push(None);
                        }
                        _ => {}
                    }
                }
                commit(&store, changes, Notes { floor: 1, settled });
            }
        }
        if half == 0 {
            let open = store.open.lock().unwrap();
            open.as_ref().unwrap().keyspace.rotate_memtable_and_wait().unwrap();
        }
    }
    store.close(Some(400));
    history
}

fn read_back(directory: &Path) -> (BTreeMap<CacheKey, Record>, JournalReport) {
    let (store, found) = Store::open(directory).unwrap();
    // As the journal does: what was found elsewhere is written, and the salvage is over.
    let changes = found.records.iter().map(|(number, record)| put(*number, record.clone())).collect();
    commit(&store, changes, Notes { floor: 0, settled: found.settled });
    store.salvage_finished(&found.report.moved_aside);
    store.close(Some(found.records.len()));
    (found.records.into_iter().map(|(_, record)| (record.key.clone(), record)).collect(), found.report)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        if file.extension().is_some_and(|end| end == "jnl") {
            // The zeros that fjall allocates ahead only cost time here.
            let length = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
            bytes.truncate(length);
        }
        fs::write(target, bytes).unwrap();
    }
}

/// What came back must be something that was written, whole, and a settled key must not come back with a value unless
/// that is reported as salvaged. Returns how many of the pending records are missing or older.
fn check(history: &History, found: &BTreeMap<CacheKey, Record>, report: &JournalReport, what: &str) -> usize {
    let mut wrong = 0;
    for (id, values) in history {
        let text = found.get(&key(*id)).map(|record| value(record).unwrap());
        if let Some(text) = &text {
            assert!(values.contains(&Some(text.clone())), "{what}: {id} came back as {text}, never written");
        }
        wrong += usize::from(text != *values.last().unwrap());
    }
    assert!(found.len() <= history.len(), "{what}: keys came back that were never written");
    if wrong > 0 {
        assert!(!report.is_clean(), "{what}: {wrong} keys are wrong and the report says nothing");
    }
    wrong
}

#[test]
fn a_sound_journal_reads_back_exactly_and_says_that_it_was_sound() {
    let directory = scratch();
    let history = fill(directory.path());
    for _ in 0..2 {
        let (found, report) = read_back(directory.path());
        assert_eq!(check(&history, &found, &report, "untouched"), 0);
        assert_eq!(report, JournalReport { records: 400, ..JournalReport::default() });
    }
}

#[test]
fn damage_anywhere_loses_at_most_what_was_damaged_and_is_reported() {
    let origin = scratch();
    let history = fill(origin.path());
    let mut worst = (0, String::new());
    let (mut cases, mut aside) = (0, 0);
    for file in files(origin.path()) {
        let name = file.strip_prefix(origin.path()).unwrap().to_owned();
        let mut length = fs::read(&file).unwrap().len();
        if file.extension().is_some_and(|end| end == "jnl") {
            let bytes = fs::read(&file).unwrap();
            length = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        }
        let places = (0..3).map(|part| part * length / 3).chain([length.saturating_sub(1)]);
        for (index, place) in places.filter(|place| *place < length).enumerate() {
            for (turn, kind) in ["flip", "cut", "zero"].into_iter().enumerate() {
                // Each takes a good part of a second: a quarter of the cases, unless it is night.
                if (turn + index) % 4 != 0 && std::env::var_os("TIERKEEP_CRASH_ROUNDS").is_none() {
                    continue;
                }
                let directory = scratch();
                copy(origin.path(), directory.path());
                let target = directory.path().join(&name);
                let mut bytes = fs::read(&target).unwrap();
                match kind {
                    "flip" => bytes[place] ^= 0x10,
                    "cut" => bytes.truncate(place),
                    _ => bytes[place..(place + 64).min(length)].fill(0),
                }
                fs::write(&target, bytes).unwrap();
                let what = format!("{kind} of `{}` at {place} of {length}", name.display());
                let (found, report) = read_back(directory.path());
                let wrong = check(&history, &found, &report, &what);
                cases += 1;
                aside += usize::from(!report.moved_aside.is_empty());
                let bound = match kind {
                    // Everything behind the cut is gone, by definition.
                    "cut" => 600,
                    _ => 12,
                };
                assert!(wrong <= bound, "{what}: {wrong} keys are wrong: {report:?}");
                if kind != "cut" && wrong > worst.0 {
                    worst = (wrong, what.clone());
                }
                // And it goes on from there.
                let (again, report) = read_back(directory.path());
                let texts = |records: &BTreeMap<CacheKey, Record>| {
                    records.iter().map(|(key, record)| (key.clone(), value(record))).collect::<Vec<_>>()
                };
                let (now, before) = (texts(&again), texts(&found));
                let changed = before.iter().find(|pair| !now.contains(pair));
                assert_eq!(changed, None, "{what}: a second opening lost it");
                assert_eq!(now.len(), before.len(), "{what}: a second opening found more");
                assert!(report.moved_aside.is_empty(), "{what}: {report:?}");
            }
        }
    }
    println!("{cases} cases of damage, {aside} stores moved aside; worst without a cut: {worst:?}");
    assert!(aside > 0);
}
