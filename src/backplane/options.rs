//! How a backplane is used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Backplane;
use crate::error::{Error, ErrorKind, Result};

/// How a cache uses its backplane. All processes should use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackplaneOptions {
    /// How often a process that has nothing to tell says so, with the number of its last message: what was lost is
    /// noticed within this time. Each process hears each other's. Default: 1 s.
    pub heartbeat: Duration,
    /// After how long without its own messages a process takes its subscription for lost, and without another's that one
    /// for gone. Default: 3 s.
    pub silence: Duration,
    /// Processes that drop everything do so at random within this time, so that they do not all ask the store at once.
    /// Default: 500 ms.
    pub jitter: Duration,
    /// The life of an entry in an unshared tier while the backplane is away, and for ten minutes after another process
    /// fell silent without taking leave, unless it is heard again: at most. Default: 30 s.
    pub fallback_cap: Duration,
    /// Keys that wait to be published. Past it, the others are told to drop everything instead. Default: 10,000.
    pub queue: usize,
    /// Keys in one message. Default: 256.
    pub batch: usize,
}

impl Default for BackplaneOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            jitter: Duration::from_millis(500),
            fallback_cap: Duration::from_secs(30),
            queue: 10_000,
            batch: 256,
        }
    }
}

impl BackplaneOptions {
    pub(super) fn validate(&self) -> Result<()> {
        if self.heartbeat.is_zero() || self.fallback_cap.is_zero() || self.queue == 0 || self.batch == 0 {
            let message =
                "the backplane's `heartbeat`, `fallback_cap`, `queue` and `batch` must be above zero";
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.silence < self.heartbeat * 2 {
            let message =
                "the backplane's `silence` must be at least two heartbeats, or every late one is a loss";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(())
    }
}

/// What a builder was given.
#[derive(Clone, Default)]
pub(crate) struct Chosen {
    pub(crate) transport: Option<Arc<dyn Backplane>>,
    pub(crate) options: BackplaneOptions,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen")
            .field("on", &self.transport.is_some())
            .field("options", &self.options)
            .finish()
    }
}
