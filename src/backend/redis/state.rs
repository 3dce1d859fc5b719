//! How the connections fare, for those who watch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether the store can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionState {
    /// Nobody has asked for anything yet.
    Idle,
    /// The first attempt is under way.
    Connecting,
    /// Connected.
    Connected,
    /// Not connected. Calls fail at once, while attempts go on in the background.
    Disconnected,
}

/// How a [`RedisBackend`](super::RedisBackend) fares. Without secrets.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RedisStats {
    /// Whether the store can be reached; of a cluster, the worst of its nodes.
    pub state: ConnectionState,
    /// Nodes that are known: 1, or the masters of a cluster.
    pub nodes: usize,
    /// Connections made since the backend was built.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Connections lost or given up because nothing came back.
    pub disconnects: u64,
    /// Why the last attempt or connection failed.
    pub last_error: Option<String>,
    /// Writes and removals that were not applied because something newer stood there.
    pub newer_found: u64,
    /// Keys that held another type of Redis value, in a cluster and with plain values; a single server does not tell
    /// them from keys that hold nothing.
    pub wrong_type: u64,
    /// Entries hidden by a clear and deleted in its wake.
    pub cleared: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connects: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) disconnects: AtomicU64,
    pub(super) newer_found: AtomicU64,
    pub(super) wrong_type: AtomicU64,
    pub(super) cleared: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counts {
    pub(super) fn one(count: &AtomicU64) {
        Self::add(count, 1);
    }

    pub(super) fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, error: &crate::Error) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.message().to_owned());
    }

    pub(super) fn stats(&self, state: ConnectionState, nodes: usize) -> RedisStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RedisStats {
            state,
            nodes,
            connects: count(&self.connects),
            connect_failures: count(&self.connect_failures),
            disconnects: count(&self.disconnects),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            newer_found: count(&self.newer_found),
            wrong_type: count(&self.wrong_type),
            cleared: count(&self.cleared),
        }
    }
}
