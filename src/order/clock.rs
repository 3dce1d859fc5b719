//! The hybrid logical clock that numbers mutations.

use std::time::Duration;

use crate::runtime::RuntimeHandle;
use crate::sync::{AtomicU64, Ordering};
use crate::value::{Stamp, Timestamp};

/// How far ahead of the wall clock a stamp from elsewhere may pull this one.
const DRIFT: Duration = Duration::from_secs(60);

/// Draws stamps that grow with every draw, whatever the wall clock does.
///
/// In cache lines of its own: every mutation writes here, and what every hit reads must not lie beside it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct HybridClock {
    last: AtomicU64,
    node: u32,
}

impl HybridClock {
    pub(crate) fn new(runtime: &RuntimeHandle) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "any 32 of the random bits will do")]
        let node = runtime.random() as u32;
        Self { last: AtomicU64::new(0), node }
    }

    /// The next stamp, greater than every one drawn or observed before.
    pub(crate) fn mint(&self, wall: Timestamp) -> Stamp {
        let now = wall.as_millis() << 16;
        // SeqCst: stamps are the order itself; one total order over all threads is what is promised.
        let last = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now.max(last + 1)))
            .unwrap_or_default();
        Stamp { time: now.max(last + 1), node: self.node }
    }

    /// Moves past a stamp that another process wrote, unless its clock is further ahead than the drift bound.
    pub(crate) fn observe(&self, stamp: Stamp, wall: Timestamp) {
        if stamp.time > self.last.load(Ordering::Relaxed) && stamp.wall() <= wall.after(DRIFT) {
            self.last.fetch_max(stamp.time, Ordering::SeqCst);
        }
    }
}
