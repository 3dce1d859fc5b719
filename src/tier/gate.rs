//! The gate before a tier's store: one load tells a read whether anything is in quarantine.

use crate::sync::{AtomicU32, Ordering};

/// Some key is in quarantine.
const QUARANTINE: u32 = 1;
/// The whole tier reads as a miss.
const BYPASS: u32 = 2;
/// The bypass stays until an operator ends it.
const HELD: u32 = 4;

/// Written under the ledger's lock, before a mutation that was not confirmed returns to its caller; read without it,
/// *before* the store: between a later look and the read, a repair could lift the quarantine after the read had already
/// seen the old value.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU32);

impl Gate {
    pub(crate) fn open() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether nothing at all is in quarantine.
    pub(crate) fn is_open(&self) -> bool {
        // Acquire pairs with `set`: who finds it open again sees the store as the repair left it.
        self.0.load(Ordering::Acquire) == 0
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
        let held = self.0.load(Ordering::Acquire) & HELD;
        let bits = held | if quarantined { QUARANTINE } else { 0 } | if bypassed { BYPASS } else { 0 };
        self.0.store(bits, Ordering::Release);
    }
}
