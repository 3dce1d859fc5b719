//! Bypass: the whole tier reads as a miss, because too many of its keys were in quarantine or an operator says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::{TierCore, lock};
use crate::observe::{BypassCause, EventKind};
use crate::planted::{Plant, planted};
use crate::value::Stamp;

impl TierCore {
    pub(crate) fn is_bypassed(&self) -> bool {
        self.gate.is_bypassed()
    }

    /// Whether an operator holds the tier in bypass.
    pub(super) fn is_held(&self) -> bool {
        self.gate.is_held()
    }

    /// Why the tier is bypassed, if it is.
    pub(crate) fn bypass_cause(&self) -> Option<BypassCause> {
        match (self.gate.is_held(), self.gate.is_bypassed()) {
            (true, _) => Some(BypassCause::Operator),
            (false, true) => Some(BypassCause::QuarantineOverflow),
            (false, false) => None,
        }
    }

    /// Bypasses the tier until it is told otherwise. Then it is made safe as after an overflow, and serves again.
    pub(crate) fn hold_bypass(self: &Arc<Self>, on: bool) {
        self.with_ledger(|_, _| {
            let was_bypassed = self.gate.is_bypassed();
            self.gate.hold(on);
            if on && !was_bypassed {
                self.outbox.note(EventKind::BypassBegan { by: BypassCause::Operator });
            }
        });
    }

    /// Serves again, with everything up to `stamp` absent, unless an operator has bypassed the tier meanwhile.
    pub(super) fn lift_bypass(&self, stamp: Stamp) {
        if !planted(Plant::BypassHidesNothing) {
            self.hidden.fetch_max(stamp.time, Ordering::SeqCst);
        }
        {
            let mut ledger = lock(&self.ledger);
            if self.gate.is_held() {
                return;
            }
            self.gate.set(ledger.quarantined > 0, false);
            self.outbox.note(EventKind::BypassEnded);
            self.set_gate(&mut ledger);
        }
        self.outbox.tell();
        self.wake_behind();
    }
}
