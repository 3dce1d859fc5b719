//! The operating system's clocks.

use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use tierkeep::Timestamp;
use tierkeep::runtime::Instant;

/// A monotonic clock that counts from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(StdInstant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
    pub(crate) fn start() -> Self {
        Self(StdInstant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::default().after(self.0.elapsed())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
pub(crate) fn wall() -> Timestamp {
    // A clock set before 1970 reads as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
