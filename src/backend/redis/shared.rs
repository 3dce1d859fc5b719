//! What the parts of a backend share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::connect::Connector;
use super::keyspace::Keyspace;
use super::state::Counts;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;

pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) keyspace: Keyspace,
    pub(super) counts: Counts,
    /// For how long an answer may be due before the connection is given up.
    pub(super) silence: Duration,
    /// The longest time between two attempts to connect.
    pub(super) max_backoff: Duration,
    runtime: ArcSwapOption<RuntimeHandle>,
    openings: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        connector: Connector,
        keyspace: Keyspace,
        silence: Duration,
        max_backoff: Duration,
    ) -> Self {
        let counts = Counts::default();
        Self {
            connector,
            keyspace,
            counts,
            silence,
            max_backoff,
            runtime: ArcSwapOption::empty(),
            openings: AtomicU64::new(0),
        }
    }

    /// Where the backend runs from here on.
    pub(super) fn open_on(&self, runtime: &RuntimeHandle) {
        self.runtime.store(Some(Arc::new(runtime.clone())));
        self.openings.fetch_add(1, Ordering::SeqCst);
    }

    /// How often it has been opened: what was begun under an earlier opening may have ended with its runtime.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::SeqCst)
    }

    /// # Errors
    /// [`ErrorKind::Unavailable`] before the backend is opened.
    pub(super) fn runtime(&self) -> Result<RuntimeHandle> {
        match &*self.runtime.load() {
            Some(runtime) => Ok(RuntimeHandle::clone(runtime)),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "the Redis backend is not open: put it into a cache, or call `open` with a runtime",
            )),
        }
    }
}
