//! What is to be told of a tier, kept until no lock is held: a listener may ask the cache, which takes them all.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EventKind, Events, trace};
use crate::value::BackendLabel;

/// Events in the order in which they happened: noted under the lock under which they did, told outside it.
pub(crate) struct Outbox {
    events: Arc<Events>,
    label: BackendLabel,
    /// How many events wait: what [`tell`](Self::tell) looks at first.
    noted: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    kinds: VecDeque<EventKind>,
    /// Whether a thread is telling them; it tells what others note meanwhile too, so that the order is kept.
    telling: bool,
}

impl Outbox {
    pub(crate) fn new(events: &Arc<Events>, label: &BackendLabel) -> Arc<Self> {
        let (events, label) = (Arc::clone(events), label.clone());
        Arc::new(Self { events, label, noted: AtomicUsize::new(0), waiting: Mutex::default() })
    }

    /// Notes an event; [`tell`](Self::tell) follows once no lock is held.
    pub(crate) fn note(&self, kind: EventKind) {
        let mut waiting = self.lock();
        waiting.kinds.push_back(kind);
        self.noted.store(waiting.kinds.len(), Ordering::Relaxed);
    }

    /// Tells what was noted, unless another thread is at it. To be called under no lock. One load if there is nothing.
    pub(crate) fn tell(&self) {
        // Relaxed: whoever noted something calls this afterwards, on the same thread.
        if self.noted.load(Ordering::Relaxed) == 0 || std::mem::replace(&mut self.lock().telling, true) {
            return;
        }
        while let Some(kind) = self.next() {
            // A listener's panic is its own: the tier goes on, and so do the other events.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                trace::event(&self.label, &kind);
                self.events.tell(&self.label, || kind);
            }));
        }
    }

    /// The next event to be told. After the last one, the next thread may tell.
    fn next(&self) -> Option<EventKind> {
        let mut waiting = self.lock();
        let kind = waiting.kinds.pop_front();
        self.noted.store(waiting.kinds.len(), Ordering::Relaxed);
        waiting.telling = kind.is_some();
        kind
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under this lock panics halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
