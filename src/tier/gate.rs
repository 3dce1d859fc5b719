//! The gate before a tier's store: one load tells a read whether anything is in quarantine.

use crate::sync::{AtomicU32, Ordering};

/// Some key is in quarantine.
const QUARANTINE: u32 = 1;
/// The whole tier reads as a miss.
const BYPASS: u32 = 2;

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

    /// To be called under the ledger's lock, before it is released and anyone is told.
    pub(crate) fn set(&self, quarantined: bool, bypassed: bool) {
        let bits = if quarantined { QUARANTINE } else { 0 } | if bypassed { BYPASS } else { 0 };
        self.0.store(bits, Ordering::Release);
    }
}
