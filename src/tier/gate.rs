//! The gate before a tier's store: one load tells a read whether anything is in quarantine.

use crate::sync::{AtomicU32, Ordering};

/// Some key is in quarantine.
const QUARANTINE: u32 = 1;
/// The whole tier reads as a miss.
const BYPASS: u32 = 2;
/// The bypass stays until an operator ends it.
const HELD: u32 = 4;
/// Some key of a write-behind tier shows a value that its store may not have yet.
const PENDING: u32 = 8;

/// Written under the ledger's lock, before a mutation that was not confirmed returns to its caller; read without it,
/// *before* the store: between a later look and the read, a repair could lift the quarantine after the read had already
/// seen the old value.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU32);

impl Gate {
    pub(crate) fn open() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether nothing at all is in quarantine or pending: the store may be asked.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        // Acquire pairs with `set`: who finds it open again sees the store as the repair left it.
        self.0.load(Ordering::Acquire) == 0
    }

    /// Whether a key, or the tier, has to be made good.
    pub(crate) fn blocks(&self) -> bool {
        self.0.load(Ordering::Acquire) & (QUARANTINE | BYPASS) != 0
    }

    pub(crate) fn is_bypassed(&self) -> bool {
        self.0.load(Ordering::Acquire) & BYPASS != 0
    }

    /// Whether an operator holds the tier in bypass.
    pub(crate) fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire) & HELD != 0
    }

    /// Has an operator hold the tier in bypass, or let it go: the bypass itself then ends as any does. Under the
    /// ledger's lock.
    pub(crate) fn hold(&self, on: bool) {
        let bits = self.0.load(Ordering::Acquire);
        self.0.store(if on { bits | BYPASS | HELD } else { bits & !HELD }, Ordering::Release);
    }

    /// To be called under the ledger's lock, before it is released and anyone is told.
    pub(crate) fn set(&self, quarantined: bool, bypassed: bool) {
        let kept = self.0.load(Ordering::Acquire) & (HELD | PENDING);
        let bits = kept | if quarantined { QUARANTINE } else { 0 } | if bypassed { BYPASS } else { 0 };
        self.0.store(bits, Ordering::Release);
    }

    /// The same for what is pending.
    pub(crate) fn set_pending(&self, pending: bool) {
        let bits = self.0.load(Ordering::Acquire);
        if (bits & PENDING != 0) != pending {
            self.0.store(bits ^ PENDING, Ordering::Release);
        }
    }
}
