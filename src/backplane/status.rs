//! How a backplane fares.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::Error;

/// Whether what other processes write is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackplaneState {
    /// Not subscribed: entries above a shared tier live for
    /// [`fallback_cap`](super::BackplaneOptions::fallback_cap) at most.
    Down,
    /// Subscribed.
    Up,
}

/// Why a process dropped everything that its unshared tiers held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DropCause {
    /// A message of another process was missing.
    Gap,
    /// Another process was heard for the first time, though it had sent messages before: as a rule, before this one
    /// was built or subscribed. The first time, only in-process tiers are dropped.
    Stranger,
    /// The subscription was lost.
    Disconnected,
    /// It is subscribed again, and may have missed messages.
    Reconnected,
    /// Another process fell silent without taking its leave: it may not have told what it wrote last.
    PeerLost,
    /// Another process had more to tell than it could queue.
    Resync,
    /// A message could not be read.
    Unreadable,
}

/// How a cache's backplane fares, in [`Inspection`](crate::Inspection).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackplaneInspection {
    /// Whether it hears.
    pub state: BackplaneState,
    /// Other processes that are heard.
    pub peers: usize,
    /// Processes that fell silent without taking leave, in the last ten minutes: they may write and be unable to tell.
    /// While there are any, entries above a shared tier live for
    /// [`fallback_cap`](super::BackplaneOptions::fallback_cap) at most.
    pub missing: usize,
    /// Keys and clears that wait to be published.
    pub queued: usize,
    /// Messages published, heartbeats included.
    pub published: u64,
    /// Attempts to publish that failed.
    pub publish_failures: u64,
    /// Keys and clears published.
    pub told: u64,
    /// Keys and clears heard of.
    pub heard: u64,
    /// Entries that were dropped for what was heard.
    pub dropped: u64,
    /// How often the queue overflowed.
    pub overflows: u64,
    /// How often it subscribed.
    pub subscriptions: u64,
    /// Stretches of messages that were missed.
    pub gaps: u64,
    /// How often everything was dropped.
    pub drops: u64,
    /// Why everything was dropped last.
    pub last_drop: Option<DropCause>,
    /// Why publishing or subscribing failed last.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) up: AtomicBool,
    pub(super) peers: AtomicUsize,
    pub(super) missing: AtomicUsize,
    pub(super) published: AtomicU64,
    pub(super) publish_failures: AtomicU64,
    pub(super) told: AtomicU64,
    pub(super) heard: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) overflows: AtomicU64,
    pub(super) subscriptions: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) drops: AtomicU64,
    last: Mutex<(Option<DropCause>, Option<String>)>,
}

impl Status {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        // Counters order nothing.
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn one(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    pub(super) fn failed(&self, error: &Error) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(error.to_string());
    }

    pub(super) fn drops_all(&self, cause: DropCause) {
        Self::one(&self.drops);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(cause);
    }

    pub(super) fn inspect(&self, queued: usize) -> BackplaneInspection {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (last_drop, last_error) = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let up = self.up.load(Ordering::Relaxed);
        BackplaneInspection {
            state: if up { BackplaneState::Up } else { BackplaneState::Down },
            peers: self.peers.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
            queued,
            published: get(&self.published),
            publish_failures: get(&self.publish_failures),
            told: get(&self.told),
            heard: get(&self.heard),
            dropped: get(&self.dropped),
            overflows: get(&self.overflows),
            subscriptions: get(&self.subscriptions),
            gaps: get(&self.gaps),
            drops: get(&self.drops),
            last_drop,
            last_error,
        }
    }
}
