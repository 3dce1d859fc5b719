//! Tokio's clock, which can be paused and advanced, and a wall clock that goes along.

use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use tierkeep::Timestamp;
use tierkeep::runtime::{Instant, system_wall};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant as TokioInstant;

/// The clocks of one runtime, counting from when this was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    tokio: TokioInstant,
    os: StdInstant,
    /// Whether the clock can be paused at all: only that of a current-thread runtime can, and only by being inside
    /// of that runtime is it seen.
    pausable: bool,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
    pub(crate) fn start(handle: &Handle) -> Self {
        let _entered = handle.enter();
        let pausable = handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
        Self { tokio: TokioInstant::now(), os: StdInstant::now(), pausable }
    }

    pub(crate) fn now(&self, handle: &Handle) -> Instant {
        Instant::default().after(self.elapsed(handle))
    }

    /// The operating system's wall clock, shifted by as much as tokio's clock was paused or advanced.
    #[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
    #[inline]
    pub(crate) fn wall(&self, handle: &Handle) -> Timestamp {
        if !self.pausable {
            return system_wall();
        }
        // Asked anew each time: what it is shifted by changes at any moment. Set before 1970 it reads as 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (tokio, os) = (self.elapsed(handle), self.os.elapsed());
        let since = (since + tokio.saturating_sub(os)).saturating_sub(os.saturating_sub(tokio));
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Tokio's name for `instant`, unless it is too far away for one.
    pub(crate) fn at(&self, instant: Instant) -> Option<TokioInstant> {
        self.tokio.checked_add(Duration::from_nanos(instant.as_nanos()))
    }

    fn elapsed(&self, handle: &Handle) -> Duration {
        let _entered = self.pausable.then(|| handle.enter());
        TokioInstant::now().saturating_duration_since(self.tokio)
    }
}
