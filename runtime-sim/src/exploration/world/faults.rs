//! The faults that struck, by the names they are counted under.

use tierkeep::EventKind;

use super::{World, lock};
use crate::faults::Fault;
use crate::history::Violation;

/// What goes wrong besides the faults of stores, by the names it is counted under.
pub(super) const ENGINE_FAULTS: [&str; 8] = [
    "full_mailbox",
    "bypass",
    "breaker_open",
    "late_call",
    "crash_tier",
    "crash_supervisor",
    "restart_limit",
    "wall_jump",
];

pub(super) fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Error => "error",
        Fault::Delay => "delay",
        Fault::Hang => "hang",
        Fault::HangThenComplete => "hang_then_complete",
        Fault::Panic => "panic",
        Fault::LostReply => "lost_reply",
        Fault::AppliedButFails => "applied_but_fails",
        Fault::ReportedButNotApplied => "reported_but_not_applied",
        Fault::Zombie => "zombie",
        Fault::Corrupt => "corrupt",
        Fault::Torn => "torn",
        Fault::RefuseOpen => "refuse_open",
        Fault::FailReopen => "fail_reopen",
    }
}

impl World {
    pub(super) fn count_engine(&self) {
        let inspection = self.cache.inspect();
        let mut watch = self.watch();
        watch.outcome.fences = self.cache.fence_counts();
        let mut events = lock(&self.events);
        while let Some(event) = events.try_next() {
            watch.strike("restart_limit", u64::from(matches!(event.kind, EventKind::TierDown { .. })));
        }
        for tier in &inspection.tiers {
            watch.strike("full_mailbox", tier.reads.overloaded + tier.writes.waited);
            watch.strike("bypass", tier.writes.bypasses);
            watch.strike("breaker_open", tier.breaker_opened);
            watch.strike("late_call", tier.writes.late);
            if let Some(error) = tier.last_error.as_ref().filter(|error| !is_planned(error)) {
                let what = format!("the actor of {}: {error}", tier.label);
                watch.outcome.violations.push(Violation::Panic { what });
            }
            watch.outcome.fills += tier.writes.fills;
            watch.outcome.fills_void += tier.writes.fills_void;
        }
    }
}

/// Whether an actor failed because a step or a fault wanted it to.
fn is_planned(error: &str) -> bool {
    error.contains("crash asked for by a test") || error.contains("injected ")
}
