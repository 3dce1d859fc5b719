//! Fences: what was read before a mutation began must not be written after it.

use std::sync::Arc;

use super::witness::Witness;
use crate::planted::{Plant, planted};
use crate::sync::{AtomicU64, Ordering};

/// Added to a stripe when a mutation begins: the version (upper 40 bits) moves and the busy count (lower 24) grows.
const BEGIN: u64 = (1 << 24) + 1;
const BUSY: u64 = (1 << 24) - 1;

/// A striped table of versions and busy counts, and one stripe more that concerns every key (clears).
///
/// Two keys that share a stripe cost each other a refill now and then, never a wrong value.
#[derive(Debug)]
pub(crate) struct Fences {
    stripes: Box<[AtomicU64]>,
    all: AtomicU64,
    pub(crate) witness: Witness,
}

/// What a stripe looked like before something was read below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence {
    hash: u64,
    seen: u64,
    seen_all: u64,
    /// For the witness.
    own: u64,
}

impl Fences {
    /// A table of `stripes`, brought up to a power of two.
    pub(crate) fn new(stripes: usize) -> Self {
        let stripes = stripes.max(1).next_power_of_two();
        Self {
            stripes: (0..stripes).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
            witness: Witness::default(),
        }
    }

    fn index(&self, hash: u64) -> usize {
        // The upper bits: maps keyed by the same hash use the lower ones.
        let index = (hash >> 32) as usize;
        index & (self.stripes.len() - 1)
    }

    /// Marks the key's stripe busy, and moved, until the guard is dropped.
    pub(crate) fn begin(&self, hash: u64) -> Busy<'_> {
        self.witness.begin(Some(hash));
        // SeqCst here and in `take` and `holds`: a reader that took its fence before this and reads below after it
        // must fail the check later. Both are one location, so coherence gives it; SeqCst costs nothing more on a
        // read-modify-write and keeps the argument short.
        self.stripes[self.index(hash)].fetch_add(BEGIN, Ordering::SeqCst);
        Busy { fences: self, hash }
    }

    /// Keeps a stripe busy that is so already, until [`release`](Self::release): for a tier that takes longer than the
    /// guard is held. It has no guard of its own: counting references to the table, all writers would fight for one
    /// cache line.
    pub(crate) fn hold(&self, hash: u64) {
        self.witness.hold(hash);
        self.stripes[self.index(hash)].fetch_add(1, Ordering::SeqCst);
    }

    /// Ends one [`hold`](Self::hold) of the stripe.
    pub(crate) fn release(&self, hash: u64) {
        self.witness.end(Some(hash));
        self.stripes[self.index(hash)].fetch_sub(1, Ordering::SeqCst);
    }

    /// Marks every stripe busy, and moved, until the guard is dropped.
    pub(crate) fn begin_all(self: &Arc<Self>) -> AllBusy {
        self.witness.begin(None);
        self.all.fetch_add(BEGIN, Ordering::SeqCst);
        AllBusy(Arc::clone(self))
    }

    /// Takes a fence, to be taken *before* anything is read below. A mutation under way voids it: `None`.
    pub(crate) fn take(&self, hash: u64) -> Option<Fence> {
        let seen = self.stripes[self.index(hash)].load(Ordering::SeqCst);
        let seen_all = self.all.load(Ordering::SeqCst);
        let free = planted(Plant::NoFence) || planted(Plant::FenceBusy) || (seen | seen_all) & BUSY == 0;
        let own = self.witness.taken(hash, !free);
        free.then_some(Fence { hash, seen, seen_all, own })
    }

    /// Whether no mutation of the stripe began since the fence was taken. Asked by the tier's actor, which applies
    /// a mutation that begins after this later than what it is about to apply.
    pub(crate) fn holds(&self, fence: Fence) -> bool {
        let seen = self.stripes[self.index(fence.hash)].load(Ordering::SeqCst);
        let seen_all = self.all.load(Ordering::SeqCst);
        let same_version = |a: u64, b: u64| a & !BUSY == b & !BUSY;
        let holds = planted(Plant::NoFence)
            || (planted(Plant::FenceBusy)
                && same_version(seen, fence.seen)
                && same_version(seen_all, fence.seen_all))
            || (seen == fence.seen && seen_all == fence.seen_all);
        self.witness.held(fence.hash, fence.own, !holds);
        holds
    }
}

/// Keeps a stripe busy until dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    fences: &'a Fences,
    hash: u64,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.fences.release(self.hash);
    }
}

/// Keeps every stripe busy until dropped.
#[derive(Debug)]
pub(crate) struct AllBusy(Arc<Fences>);

impl Drop for AllBusy {
    fn drop(&mut self) {
        self.0.witness.end(None);
        self.0.all.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences() -> Arc<Fences> {
        Arc::new(Fences::new(4))
    }

    #[test]
    fn a_fence_holds_while_nothing_happens() {
        let fences = fences();
        let fence = fences.take(1).unwrap();
        assert!(fences.holds(fence));
    }

    #[test]
    fn a_fence_taken_while_busy_is_void() {
        let fences = fences();
        let busy = fences.begin(1);
        assert!(fences.take(1).is_none());
        drop(busy);
        assert!(fences.take(1).is_some());
    }

    #[test]
    fn a_stripe_is_busy_until_the_last_has_let_go() {
        let fences = fences();
        let busy = fences.begin(1);
        fences.hold(1);
        drop(busy);
        assert!(fences.take(1).is_none());
        fences.release(1);
        assert!(fences.take(1).is_some());
    }

    #[test]
    fn a_mutation_voids_the_fence_while_it_runs_and_after() {
        let fences = fences();
        let fence = fences.take(1).unwrap();
        let busy = fences.begin(1);
        assert!(!fences.holds(fence));
        drop(busy);
        assert!(!fences.holds(fence));
    }

    #[test]
    fn another_stripe_is_not_concerned() {
        let fences = fences();
        let fence = fences.take(0).unwrap();
        drop(fences.begin(1 << 32));
        assert!(fences.holds(fence));
    }

    #[test]
    fn a_clear_moves_every_fence() {
        let fences = fences();
        let fence = fences.take(1).unwrap();
        drop(fences.begin_all());
        assert!(!fences.holds(fence));
    }
}
