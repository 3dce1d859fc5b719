//! Order: how an older value never wins over a newer one.
//!
//! These are the shared tools; each rule that uses them stands where it acts (`tier::ledger`, `tier::quarantine`,
//! `composition::write`). Together:
//!
//! - **Numbers.** Every mutation announces itself at each tier and then draws a [`Stamp`](crate::Stamp) from one clock
//!   ([`HybridClock`]). Because it announces first, a mutation with a later stamp always finds the earlier one known.
//! - **Settlement.** A mutation returns when every tier has applied it, dropped it as superseded by one that is itself
//!   settled there, or quarantined its key.
//! - **Fences.** What was read below may be written above only if no mutation of the key began since ([`Fences`]).
//! - **Clears** hide everything up to their stamp, at once and in every tier ([`Clears`]).

mod clears;
mod clock;
mod fence;
mod witness;

pub(crate) use clears::Clears;
pub(crate) use clock::HybridClock;
pub(crate) use fence::{AllBusy, Busy, Fence, Fences};
#[cfg(feature = "testing")]
pub use witness::FenceCounts;

use std::sync::Arc;

use crate::backend::Scope;
use crate::key::{CacheKey, KeyProbe};
use crate::planted::{Plant, planted};
use crate::runtime::RuntimeHandle;
use crate::value::{Meta, Stamp};

/// The order of one composition.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) clock: HybridClock,
    pub(crate) fences: Arc<Fences>,
    pub(crate) clears: Clears,
    /// Before every write of this process, after (or equal to) every entry that it inherits.
    origin: Stamp,
}

impl Order {
    pub(crate) fn new(runtime: &RuntimeHandle, stripes: usize) -> Self {
        let clock = HybridClock::new(runtime);
        let origin = clock.mint(runtime.wall());
        Self { clock, fences: Arc::new(Fences::new(stripes)), clears: Clears::default(), origin }
    }

    /// The stamp of something written before this process, brought down to before everything that it writes.
    pub(crate) fn inherited(&self, stamp: Stamp) -> Stamp {
        stamp.min(self.origin)
    }

    /// The stamps of an entry as this process has to see them, or `None` if a clear hides it.
    ///
    /// An inherited entry (from an earlier opening of a local store) is older than everything this process does, even
    /// if an earlier clock ran ahead: its stamp is brought down to this process's origin, so that any clear covers it.
    pub(crate) fn admit(&self, prefix: &str, mut meta: Meta, inherited: bool) -> Option<Meta> {
        if inherited && !planted(Plant::InheritedAhead) {
            meta.stamp = meta.stamp.min(self.origin);
        }
        (!self.clears.hide(prefix, meta.stamp)).then_some(meta)
    }

    /// As [`admit`](Self::admit), of an entry of this process: whether a clear hides it.
    #[inline]
    pub(crate) fn hides(&self, key: &KeyProbe<'_>, stamp: Stamp) -> bool {
        // One load, as long as nothing later was cleared: the prefix is looked for only then.
        self.clears.may_hide(stamp) && self.clears.hide(key.prefix(), stamp)
    }
}

/// A mutation where it begins: its stamp, and its stripe kept busy until this is dropped. So does each tier's part in it
/// until it is settled there.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) key: &'a CacheKey,
    pub(crate) stamp: Stamp,
    _busy: Busy<'a>,
}

impl<'a> Write<'a> {
    /// Call after the mutation is announced at every tier: see [`HybridClock::mint`].
    pub(crate) fn begin(order: &'a Order, runtime: &RuntimeHandle, key: &'a CacheKey) -> Self {
        let busy = order.fences.begin(key.hash_u64());
        Self { key, stamp: order.clock.mint(runtime.wall()), _busy: busy }
    }
}

/// A clear under way: every stripe is busy until it is dropped.
#[derive(Debug)]
pub(crate) struct ClearWrite {
    pub(crate) scope: Scope,
    pub(crate) stamp: Stamp,
    _busy: AllBusy,
}

impl ClearWrite {
    pub(crate) fn begin(order: &Order, runtime: &RuntimeHandle, scope: Scope) -> Self {
        let busy = order.fences.begin_all();
        let stamp = order.clock.mint(runtime.wall());
        order.clears.record(&scope, stamp);
        Self { scope, stamp, _busy: busy }
    }
}
