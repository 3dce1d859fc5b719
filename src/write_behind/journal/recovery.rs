//! What was in a journal when it was opened, and what had happened to it.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::record::{Piece, Record, scan};
use crate::key::{CacheKey, KeyHash};

/// What opening a journal found.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// Accepted, not known to be applied: the newest of each key, in the order in which they were accepted.
    pub(crate) records: Vec<Record>,
    pub(crate) report: JournalReport,
}

/// What opening a write-behind journal found, and what it could not read.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct JournalReport {
    /// Changes that are pending again.
    pub records: usize,
    /// Of `records`, values that had expired meanwhile: they are removed instead, since what they replaced may still
    /// be in the store.
    pub expired: usize,
    /// Of `records`, those that were read past damage; some of them may have been applied already.
    pub salvaged: usize,
    /// Records that began and could not be read. After a crash in the middle of a write that is the record that was
    /// being written, which nobody had been promised yet.
    pub unreadable: usize,
    /// Bytes that were cut off the log behind the place where it stopped making sense; sound records in them are
    /// `salvaged`.
    pub cut_bytes: u64,
    /// Where damaged files were moved to; never deleted.
    pub moved_aside: Vec<PathBuf>,
    /// What was wrong, in words.
    pub problems: Vec<String>,
}

impl JournalReport {
    /// Whether everything was as it had been left. (Not so after a crash in the middle of a write.)
    pub fn is_clean(&self) -> bool {
        self.unreadable == 0 && self.cut_bytes == 0 && self.problems.is_empty() && self.moved_aside.is_empty()
    }
}

/// Files as they were before fjall had a chance to cut them, without the zeros at their ends.
pub(super) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// The logs in `data`. What cannot be read is named in `problems`.
    pub(super) fn logs(data: &Path, problems: &mut Vec<String>) -> Self {
        Self::read(data, false, |path| path.extension().is_some_and(|end| end == "jnl"), problems)
    }

    /// All files in and under `directory`.
    pub(super) fn all(directory: &Path, problems: &mut Vec<String>) -> Self {
        Self::read(directory, true, |_| true, problems)
    }

    fn read(
        directory: &Path,
        deep: bool,
        wanted: impl Fn(&Path) -> bool + Copy,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut files = Vec::new();
        let Ok(entries) = fs::read_dir(directory) else { return Self(files) };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                if deep {
                    files.extend(Self::read(&path, deep, wanted, problems).0);
                }
            } else if wanted(&path) {
                match read_to_last_byte(&path) {
                    Ok(bytes) => files.push((path, bytes)),
                    Err(error) => problems.push(format!("`{}` cannot be read ({error})", path.display())),
                }
            }
        }
        // Lists of files have no order of their own; a recovery should have one.
        files.sort();
        Self(files)
    }

    /// How many bytes are gone from the ends of these files, and the bytes themselves by file.
    pub(super) fn cut(&self) -> Vec<(&Path, &[u8])> {
        let cut = self.0.iter().filter_map(|(path, bytes)| {
            // A log that is gone was not needed any more: everything in it is in tables.
            let kept = usize::try_from(fs::metadata(path).ok()?.len()).ok()?;
            Some((path.as_path(), bytes.get(kept..).filter(|cut| !cut.is_empty())?))
        });
        cut.collect()
    }
}

/// A file's bytes up to the last that is not zero: logs are allocated ahead, sparsely.
fn read_to_last_byte(path: &Path) -> std::io::Result<Vec<u8>> {
    const CHUNK: usize = 64 << 10;
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut file = fs::File::open(path)?;
    let (mut bytes, mut zeros) = (Vec::new(), 0);
    let mut chunk = Vec::with_capacity(CHUNK);
    while file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)? > 0 {
        if ZEROS.starts_with(&chunk) {
            zeros += chunk.len();
        } else {
            bytes.resize(bytes.len() + std::mem::take(&mut zeros), 0);
            bytes.extend_from_slice(&chunk);
        }
        chunk.clear();
    }
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(length);
    Ok(bytes)
}

/// Records as they are gathered from everywhere, the newest of each key.
#[derive(Default)]
pub(super) struct Gathered {
    records: HashMap<CacheKey, (u64, Record), KeyHash>,
    /// Numbers that were settled, by the key's fingerprint.
    settled: HashMap<u64, u64>,
    floor: u64,
    highest: u64,
}

impl Gathered {
    /// What a table of the open store says.
    pub(super) fn add(&mut self, number: u64, record: Record) {
        self.highest = self.highest.max(number);
        if self.records.get(&record.key).is_none_or(|(known, _)| *known < number) {
            self.records.insert(record.key.clone(), (number, record));
        }
    }

    /// Everything that can be found in files. Returns how many records began and were not sound.
    pub(super) fn scan(&mut self, files: &Files) -> usize {
        let mut broken = 0;
        // The notes first: most of what is found was settled long ago, and need not be held.
        for (_, bytes) in &files.0 {
            broken += scan(bytes, |piece| {
                if let Piece::Notes(notes) = piece {
                    self.floor = self.floor.max(notes.floor);
                    for (fingerprint, number) in notes.settled {
                        let known = self.settled.entry(fingerprint).or_default();
                        *known = number.max(*known);
                    }
                }
            });
        }
        for (_, bytes) in &files.0 {
            scan(bytes, |piece| {
                if let Piece::Record(number, record) = piece {
                    self.highest = self.highest.max(number);
                    if !self.is_settled(number, &record.key) {
                        self.add(number, record);
                    }
                }
            });
        }
        broken
    }

    /// Adds what the open store holds. Returns how many keys have something newer elsewhere.
    pub(super) fn merge(&mut self, stored: Vec<(u64, Record)>) -> usize {
        let mut held: HashMap<CacheKey, u64, KeyHash> = HashMap::default();
        for (number, record) in stored {
            held.insert(record.key.clone(), number);
            self.add(number, record);
        }
        self.records.iter().filter(|(key, (number, _))| held.get(*key) != Some(number)).count()
    }

    /// How many keys have a record.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    fn is_settled(&self, number: u64, key: &CacheKey) -> bool {
        number < self.floor || self.settled.get(&key.fingerprint()).is_some_and(|settled| number <= *settled)
    }

    /// The highest number ever seen.
    pub(super) fn highest(&self) -> u64 {
        let settled = self.settled.values().copied().max().unwrap_or(0);
        self.highest.max(settled).max(self.floor)
    }

    /// What was settled, as notes say it.
    pub(super) fn settled(&self) -> Vec<(u64, u64)> {
        self.settled.iter().map(|(fingerprint, number)| (*fingerprint, *number)).collect()
    }

    /// What is still to be applied, oldest first.
    pub(super) fn pending(mut self) -> Vec<(u64, Record)> {
        let records = std::mem::take(&mut self.records);
        let mut pending: Vec<_> =
            records.into_values().filter(|(number, record)| !self.is_settled(*number, &record.key)).collect();
        pending.sort_unstable_by_key(|(number, _)| *number);
        pending
    }
}
