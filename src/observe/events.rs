//! `cache.events()`: what happens to the tiers, as a stream of typed events.
//!
//! Nobody is ever held up by a listener: each has its own bounded queue, and when that is full its oldest event is
//! dropped and counted. While nobody listens, telling costs one atomic load.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use serde::Serialize;

use crate::key::CacheKey;
use crate::runtime::RuntimeHandle;
use crate::value::{BackendLabel, Timestamp};
use crate::write_behind::DeadReason;

/// Events that wait for a listener, unless it says otherwise.
pub(crate) const CAPACITY: usize = 1024;

/// Something that happened to a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// When, by the runtime's wall clock.
    pub at: Timestamp,
    /// To which tier.
    pub tier: BackendLabel,
    /// What.
    pub kind: EventKind,
}

/// What happened to a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// Its actor handles messages: for the first time, after a restart, or after having been down.
    TierUp,
    /// Its actor failed too often: reads miss and mutations quarantine until it is up again. It is tried after this
    /// delay, for ever.
    TierDown {
        /// The time until the next try.
        retry: Duration,
    },
    /// Its actor failed and is made anew after this delay.
    TierRestarting {
        /// The time until the next incarnation.
        delay: Duration,
    },
    /// Its actor stopped, because the cache was shut down or dropped.
    TierStopped,
    /// Too many calls failed: calls are turned away for a while.
    BreakerOpened,
    /// One call is let through to see whether the backend has healed.
    BreakerHalfOpen,
    /// The backend has healed: calls go through again.
    BreakerClosed,
    /// The whole tier reads as a miss from now on.
    BypassBegan {
        /// Who wanted it.
        by: BypassCause,
    },
    /// The tier has been made safe and serves again.
    BypassEnded,
    /// An in-process tier dropped an entry for want of room.
    Evicted {
        /// The entry's key.
        key: CacheKey,
    },
    /// An in-process tier deleted an entry that had expired. Once an entry, when it is swept: reads have missed it
    /// from the moment of its expiry.
    Expired {
        /// The entry's key.
        key: CacheKey,
    },
    /// Of the last hundred entries read from the tier, at least
    /// [`decode_alarm`](crate::TierOptions::decode_alarm) percent could not be decoded.
    DecodeFailuresRose,
    /// What other processes write to this shared tier is heard from now on.
    #[cfg(feature = "backplane")]
    BackplaneUp,
    /// What other processes write to this shared tier is not heard: tiers above it keep entries for a shorter time.
    #[cfg(feature = "backplane")]
    BackplaneDown,
    /// The tier dropped everything, because another process may have replaced it.
    #[cfg(feature = "backplane")]
    DroppedAll {
        /// Why that had to be assumed.
        cause: crate::backplane::DropCause,
    },
    /// Entries of the tier can be decoded again: a whole hundred had fewer failures than that.
    DecodeFailuresFell,
    /// The tier's write-behind journal was not as it had been left; what could be read is pending again.
    /// [`inspect`](crate::Cache::inspect) says what was found.
    JournalDamaged,
    /// The tier's write-behind queue is full: from now on its overload policy decides.
    QueueFilled,
    /// The tier's write-behind queue is empty again.
    QueueDrained,
    /// An accepted write could not be applied and went to the dead letters.
    DeadLettered {
        /// Its key.
        key: CacheKey,
        /// Why it was given up.
        reason: DeadReason,
    },
    /// The dead letters' sink did not take a letter: it is kept in memory for now.
    DeadLetterUndelivered {
        /// Its key.
        key: CacheKey,
    },
}

/// Why a tier is bypassed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BypassCause {
    /// More keys were in quarantine than the tier's limit.
    QuarantineOverflow,
    /// [`Cache::bypass`](crate::Cache::bypass).
    Operator,
}

/// The events of a cache from the moment of subscription on; ends when the cache is shut down or dropped.
///
/// A [`Stream`], on any runtime. It holds the newest events up to its capacity; older ones that were not taken in time
/// are dropped and counted by [`missed`](Self::missed). It does not keep the cache alive.
pub struct EventStream {
    channel: Arc<Channel>,
    hub: Weak<Events>,
}

impl EventStream {
    /// The next event; `None` once the cache has ended and all events have been taken. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.channel.lock().events.pop_front()
    }

    /// How many events were dropped because they were not taken in time. What was dropped is always older than what
    /// is still to be taken.
    pub fn missed(&self) -> u64 {
        self.channel.lock().missed
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = self.channel.lock();
        if let Some(event) = queue.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.unsubscribe(&self.channel);
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.channel.lock();
        f.debug_struct("EventStream")
            .field("waiting", &queue.events.len())
            .field("missed", &queue.missed)
            .finish_non_exhaustive()
    }
}

/// One listener's queue.
struct Channel {
    capacity: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock panics halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whom to wake, once no lock is held: a woken task may drop its stream there and then.
    fn push(&self, event: Event) -> Option<Waker> {
        let mut queue = self.lock();
        if queue.events.len() >= self.capacity {
            queue.events.pop_front();
            queue.missed += 1;
        }
        queue.events.push_back(event);
        queue.waker.take()
    }

    fn close(&self) -> Option<Waker> {
        let mut queue = self.lock();
        queue.closed = true;
        queue.waker.take()
    }
}

/// Everyone who listens to one cache.
pub(crate) struct Events {
    runtime: RuntimeHandle,
    /// How many listen: what telling looks at first.
    listeners: AtomicUsize,
    channels: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    channels: Vec<Arc<Channel>>,
    closed: bool,
}

impl Events {
    pub(crate) fn new(runtime: &RuntimeHandle) -> Arc<Self> {
        Arc::new(Self {
            runtime: runtime.clone(),
            listeners: AtomicUsize::new(0),
            channels: Mutex::default(),
        })
    }

    /// A new listener with room for `capacity` events (at least 1).
    pub(crate) fn subscribe(self: &Arc<Self>, capacity: usize) -> EventStream {
        let channel = Arc::new(Channel { capacity: capacity.max(1), queue: Mutex::default() });
        let mut listeners = self.lock();
        if listeners.closed {
            channel.close();
        } else {
            listeners.channels.push(Arc::clone(&channel));
            self.listeners.store(listeners.channels.len(), Ordering::Relaxed);
        }
        EventStream { channel, hub: Arc::downgrade(self) }
    }

    fn unsubscribe(&self, channel: &Arc<Channel>) {
        let mut listeners = self.lock();
        listeners.channels.retain(|known| !Arc::ptr_eq(known, channel));
        self.listeners.store(listeners.channels.len(), Ordering::Relaxed);
    }

    /// Whether anybody listens: one load. Relaxed: a listener hears what happens after its subscription returned to
    /// the thread that tells, and that thread has seen it by then.
    pub(crate) fn are_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Tells everyone who listens. `kind` is only made if somebody does.
    pub(crate) fn tell(&self, tier: &BackendLabel, kind: impl FnOnce() -> EventKind) {
        if !self.are_heard() {
            return;
        }
        let event = Event { at: self.runtime.wall(), tier: tier.clone(), kind: kind() };
        // Under the lock, so that every listener hears events in one order.
        let wakers: Vec<_> =
            self.lock().channels.iter().filter_map(|channel| channel.push(event.clone())).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends every stream once its events have been taken.
    pub(crate) fn close(&self) {
        let channels = {
            let mut listeners = self.lock();
            listeners.closed = true;
            self.listeners.store(0, Ordering::Relaxed);
            std::mem::take(&mut listeners.channels)
        };
        channels.iter().filter_map(|channel| channel.close()).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where an in-process store tells what it drops. Cheap to clone; one made by `default()` leads nowhere.
#[derive(Clone, Default)]
pub struct Removals(Option<(Weak<Events>, BackendLabel)>);

impl Removals {
    pub(crate) fn new(events: &Arc<Events>, tier: &BackendLabel) -> Self {
        Self(Some((Arc::downgrade(events), tier.clone())))
    }

    /// Whether anybody listens: worth asking before keys are gathered.
    pub fn are_heard(&self) -> bool {
        self.0.as_ref().and_then(|(events, _)| events.upgrade()).is_some_and(|events| events.are_heard())
    }

    /// The store dropped the entry for want of room.
    pub fn evicted(&self, key: &CacheKey) {
        self.tell(|| EventKind::Evicted { key: key.clone() });
    }

    /// The store deleted the entry because it had expired.
    pub fn expired(&self, key: &CacheKey) {
        self.tell(|| EventKind::Expired { key: key.clone() });
    }

    fn tell(&self, kind: impl FnOnce() -> EventKind) {
        if let Some((events, tier)) = &self.0
            && let Some(events) = events.upgrade()
        {
            events.tell(tier, kind);
        }
    }
}

impl fmt::Debug for Removals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removals").field("tier", &self.0.as_ref().map(|(_, tier)| tier)).finish()
    }
}
