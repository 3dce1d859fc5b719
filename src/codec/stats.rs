//! What the codec has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of the codec's counters, since the cache was built. A hit in a tier of objects moves none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct CodecStats {
    /// Values encoded in the caller's task.
    pub inline_encodes: u64,
    /// Values decoded in the caller's task.
    pub inline_decodes: u64,
    /// Values encoded on the blocking pool.
    pub pooled_encodes: u64,
    /// Values decoded on the blocking pool.
    pub pooled_decodes: u64,
    /// Encodings that failed.
    pub encode_failures: u64,
    /// Decodings that failed.
    pub decode_failures: u64,
    /// Jobs that the pool refused because its queue was full.
    pub rejected: u64,
    /// Payload bytes written, after compression.
    pub bytes_out: u64,
    /// Payload bytes read, before decompression.
    pub bytes_in: u64,
    /// Archives that were read without decoding them, damaged ones included: see `Region::read_archived`.
    pub archived_views: u64,
    /// Of these, how many had to be copied because the store handed them back at an address that does not suit them.
    pub archived_copies: u64,
    /// Dictionaries that are known for reading now.
    pub dictionaries: usize,
    /// Dictionaries that were found in a tier when an entry needed them.
    pub dictionaries_loaded: u64,
    /// Entries that could not be read because no dictionary of their id was found: counted misses.
    pub dictionaries_unknown: u64,
    /// Jobs on the blocking pool now.
    pub running: usize,
    /// Jobs waiting for the blocking pool now.
    pub waiting: usize,
}

/// The counters behind [`CodecStats`]. Each stands for itself, so they are relaxed.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) inline: Direction,
    pub(super) pooled: Direction,
    pub(super) failures: Direction,
    pub(super) bytes: Direction,
    pub(super) views: AtomicU64,
    pub(super) view_copies: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) encode: AtomicU64,
    pub(super) decode: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> CodecStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CodecStats {
            inline_encodes: get(&self.inline.encode),
            inline_decodes: get(&self.inline.decode),
            pooled_encodes: get(&self.pooled.encode),
            pooled_decodes: get(&self.pooled.decode),
            encode_failures: get(&self.failures.encode),
            decode_failures: get(&self.failures.decode),
            bytes_out: get(&self.bytes.encode),
            bytes_in: get(&self.bytes.decode),
            archived_views: get(&self.views),
            archived_copies: get(&self.view_copies),
            ..CodecStats::default()
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
