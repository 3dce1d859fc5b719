//! What is where in the store, and taking it over when it is opened.

use std::sync::Arc;

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use super::generation::{Generation, Summary};
use super::marks::{Marks, decode_mark, mark_key};
use super::options::Options;
use super::recovery::{Refusal, open_database};

const META: &str = "meta";
const EPOCH: &str = "epoch";
const LAYOUT: &str = "layout";
const LAYOUT_VERSION: &[u8] = b"1";

/// What a reopened store takes over from the opening that it replaces.
#[derive(Clone, Default)]
pub(super) struct Heritage {
    pub(super) epoch: Option<u32>,
    pub(super) marks: Marks,
    pub(super) clears: u64,
}

/// A store as it was found.
pub(super) struct Opened {
    pub(super) generations: Vec<Arc<Generation>>,
    pub(super) meta: Keyspace,
    pub(super) db: fjall::Database,
    pub(super) marks: Marks,
    pub(super) epoch: u32,
}

/// Opens or creates the store and begins an epoch in it.
pub(super) fn open(options: &Options, heritage: &Heritage) -> Result<Opened, Refusal> {
    let db = open_database(options)?;
    let refused = |e| Refusal::of(&options.directory, e);
    let meta = db.keyspace(META, KeyspaceCreateOptions::default).map_err(refused)?;
    check_layout(&meta).map_err(refused)??;
    let generations = find_generations(&db, &meta, options).map_err(refused)?;
    let (marks, epoch) = begin_epoch(&db, &meta, heritage).map_err(refused)?;
    Ok(Opened { generations, meta, db, marks, epoch })
}

/// How a generation's keyspace is made.
pub(super) fn keyspace_options(options: &Options) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(options.write_buffer())
}

/// Refuses a store that another version of this tier wrote in another way.
fn check_layout(meta: &Keyspace) -> fjall::Result<Result<(), Refusal>> {
    Ok(match meta.get(LAYOUT)? {
        Some(layout) if *layout == *LAYOUT_VERSION => Ok(()),
        Some(_) => Err(Refusal::Damaged("another version of the tier wrote it".to_owned())),
        // Written with the first epoch.
        None => Ok(()),
    })
}

/// The generations on disk, oldest first, and at least one.
fn find_generations(
    db: &fjall::Database,
    meta: &Keyspace,
    options: &Options,
) -> fjall::Result<Vec<Arc<Generation>>> {
    let names = db.list_keyspace_names();
    let mut ids: Vec<_> = names.iter().filter_map(|name| Generation::parse_name(name)).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        ids.push(1);
    }
    let mut generations = Vec::with_capacity(ids.len());
    for (place, &id) in ids.iter().enumerate() {
        let keyspace = db.keyspace(&Generation::name(id), || keyspace_options(options))?;
        let is_newest = place + 1 == ids.len();
        // What is not in tables yet is nearly all the newest generation's.
        let buffered = if is_newest { db.write_buffer_size() } else { 0 };
        let mut summary = Summary::found(keyspace.disk_space().saturating_add(buffered));
        let key = Generation::summary_key(id);
        if is_newest && summary.bytes == 0 {
            summary = Summary::EMPTY;
        }
        if is_newest {
            // Of an opening that began to close it; it is written to again.
            meta.remove(key)?;
        } else if let Some(kept) = meta.get(key)? {
            summary = summary.with_encoded(&kept);
        }
        generations.push(Generation::new(id, keyspace, summary));
    }
    Ok(generations)
}

/// Reads the clear marks and takes the next epoch, durably: no record may carry an epoch that a crash takes back.
fn begin_epoch(db: &fjall::Database, meta: &Keyspace, heritage: &Heritage) -> fjall::Result<(Marks, u32)> {
    let mut marks = heritage.marks.clone();
    for guard in meta.prefix("clear/") {
        let (key, value) = guard.into_inner()?;
        if let Some((scope, mark)) = decode_mark(&key, &value) {
            marks.add(&scope, mark);
        }
    }
    let stored = meta.get(EPOCH)?.and_then(|bytes| bytes.first_chunk().map(|b| u32::from_le_bytes(*b)));
    // Reopened by the opening that it belonged to last, the store goes on; in every other case openings are told apart.
    let epoch = match heritage.epoch {
        Some(own) if stored == Some(own) => own,
        own => own.max(stored).unwrap_or(0).saturating_add(1),
    };
    let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(meta, EPOCH, epoch.to_le_bytes());
    batch.insert(meta, LAYOUT, LAYOUT_VERSION);
    for (scope, mark) in marks.iter() {
        batch.insert(meta, mark_key(&scope), mark.encode());
    }
    batch.commit()?;
    meta.rotate_memtable()?;
    Ok((marks, epoch))
}
