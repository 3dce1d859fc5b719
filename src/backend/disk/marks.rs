//! Clear marks: what has been cleared, remembered for as long as cleared bytes may still lie on disk.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::{Header, Order, Reader};
use crate::backend::Scope;
use crate::value::Stamp;

const ALL: &str = "clear/all";
const PREFIX: &str = "clear/prefix/";

/// One clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The opening that cleared.
    pub(super) epoch: u32,
    /// Records of that opening at or below this stamp are gone.
    pub(super) stamp: Stamp,
    /// Its number among the clears of that opening, from 1: unstamped records that saw fewer are gone.
    pub(super) number: u64,
}

impl Mark {
    /// Whether the clear covers a record, by comparing openings first: no clock is asked across a restart.
    pub(super) fn covers(&self, header: &Header) -> bool {
        header.epoch < self.epoch
            || (header.epoch == self.epoch
                && match header.order {
                    Order::Stamp(stamp) => stamp <= self.stamp,
                    Order::Clears(seen) => seen < self.number,
                })
    }

    /// What covers everything that either of the two covers.
    fn join(self, other: Self) -> Self {
        match self.epoch.cmp(&other.epoch) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Self {
                epoch: self.epoch,
                stamp: self.stamp.max(other.stamp),
                number: self.number.max(other.number),
            },
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.stamp.time.to_le_bytes());
        out.extend_from_slice(&self.stamp.node.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        let (epoch, time, node, number) = (rest.u32()?, rest.u64()?, rest.u32()?, rest.u64()?);
        rest.0.is_empty().then_some(Self { epoch, stamp: Stamp { time, node }, number })
    }
}

/// The clears in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    all: Option<Mark>,
    prefixes: HashMap<Arc<str>, Mark>,
}

impl Marks {
    /// Whether a record under a key with `prefix` has been cleared.
    pub(super) fn cover(&self, prefix: &str, header: &Header) -> bool {
        [self.all.as_ref(), self.prefixes.get(prefix)].into_iter().flatten().any(|mark| mark.covers(header))
    }

    /// Adds a clear; the mark then in force for its scope.
    pub(super) fn add(&mut self, scope: &Scope, mark: Mark) -> Mark {
        let slot = match scope {
            Scope::All => self.all.get_or_insert(mark),
            Scope::Prefix(prefix) => self.prefixes.entry(Arc::clone(prefix)).or_insert(mark),
        };
        *slot = slot.join(mark);
        *slot
    }

    /// Takes out the clears of openings before `epoch`, whose records have all left the disk.
    pub(super) fn take_before(&mut self, epoch: u32) -> Vec<Scope> {
        let gone: Vec<_> =
            self.iter().filter(|(_, mark)| mark.epoch < epoch).map(|(scope, _)| scope).collect();
        self.all = self.all.filter(|mark| mark.epoch >= epoch);
        self.prefixes.retain(|_, mark| mark.epoch >= epoch);
        gone
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Scope, Mark)> {
        let prefixes = self.prefixes.iter().map(|(prefix, mark)| (Scope::Prefix(Arc::clone(prefix)), *mark));
        self.all.map(|mark| (Scope::All, mark)).into_iter().chain(prefixes)
    }
}

/// The key under which a scope's mark is kept.
pub(super) fn mark_key(scope: &Scope) -> String {
    match scope {
        Scope::All => ALL.to_owned(),
        Scope::Prefix(prefix) => format!("{PREFIX}{prefix}"),
    }
}

/// Reads a mark back; `None` if key or value are not a mark's.
pub(super) fn decode_mark(key: &[u8], value: &[u8]) -> Option<(Scope, Mark)> {
    let key = std::str::from_utf8(key).ok()?;
    let scope = if key == ALL { Scope::All } else { Scope::Prefix(Arc::from(key.strip_prefix(PREFIX)?)) };
    Some((scope, Mark::decode(value)?))
}
