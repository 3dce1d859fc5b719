//! What is where in the store, and taking it over when it is opened.

use std::sync::Arc;

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use super::generation::{Generation, Slot, Summary};
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
    pub(super) free: Vec<Slot>,
    pub(super) meta: Keyspace,
    pub(super) db: fjall::Database,
    pub(super) marks: Marks,
    pub(super) epoch: u32,
}

/// Opens or creates the store and begins an epoch in it.
pub(super) fn open(options: &Options, heritage: &Heritage) -> Result<Opened, Refusal> {
    let db = open_database(&options.directory, options.read_cache)?;
    let refused = |e| Refusal::of(&options.directory, e);
    let meta = db.keyspace(META, KeyspaceCreateOptions::default).map_err(refused)?;
    check_layout(&meta).map_err(refused)??;
    let (generations, free) = find_generations(&db, &meta, options).map_err(refused)?;
    let (marks, epoch) = begin_epoch(&db, &meta, heritage).map_err(refused)?;
    Ok(Opened { generations, free, meta, db, marks, epoch })
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

/// A new slot. Slots are few: as many as there ever are generations at a time, and one.
pub(super) fn make_slot(db: &fjall::Database, options: &Options) -> fjall::Result<Slot> {
    let taken = db.list_keyspace_names().iter().filter_map(|name| Slot::parse_name(name)).max();
    let number = taken.map_or(0, |highest| highest + 1);
    Ok(Slot { number, keyspace: db.keyspace(&Slot::name(number), || keyspace_options(options))? })
}

/// The generations on disk, oldest first and at least one, and the slots without one.
fn find_generations(
    db: &fjall::Database,
    meta: &Keyspace,
    options: &Options,
) -> fjall::Result<(Vec<Arc<Generation>>, Vec<Slot>)> {
    let mut taken = Vec::new();
    let mut free = Vec::new();
    for name in db.list_keyspace_names() {
        let Some(number) = Slot::parse_name(&name) else { continue };
        let slot = Slot { number, keyspace: db.keyspace(&name, || keyspace_options(options))? };
        match meta.get(slot.key())?.and_then(|kept| Generation::decode(&kept)) {
            Some((id, kept_until)) => taken.push((id, kept_until, slot)),
            None => {
                // Dropped by an opening that did not come to emptying it.
                if !slot.keyspace.is_empty()? {
                    slot.empty()?;
                }
                free.push(slot);
            }
        }
    }
    taken.sort_unstable_by_key(|(id, ..)| *id);
    let newest = taken.last().map(|(id, ..)| *id);
    let mut generations: Vec<_> = taken
        .into_iter()
        .map(|(id, kept_until, slot)| {
            // What is not in tables yet is nearly all the newest generation's, which is written to again.
            let is_newest = Some(id) == newest;
            let buffered = if is_newest { db.write_buffer_size() } else { 0 };
            let bytes = slot.keyspace.disk_space().saturating_add(buffered);
            let kept_until = kept_until.filter(|_| !is_newest);
            Generation::new(id, slot, Summary::found(bytes, kept_until))
        })
        .collect();
    if generations.is_empty() {
        let slot = match free.pop() {
            Some(slot) => slot,
            None => make_slot(db, options)?,
        };
        let first = Generation::new(1, slot, Summary::EMPTY);
        meta.insert(first.slot.key(), first.encode(false))?;
        generations.push(first);
    }
    Ok((generations, free))
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
