//! The operating system's monotonic clock.

use std::time::Instant as StdInstant;

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
