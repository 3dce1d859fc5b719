//! The way of dead letters to their sink: one at a time, in their order, never lost in silence.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_util::FutureExt;

use super::dead_letter::{DeadLetter, DeadLetterSink};
use super::keeper::Keeper;
use crate::observe::{EventKind, Outbox};
use crate::runtime::RuntimeHandle;
use crate::runtime::host::drop_quietly;

/// Letters that wait for the sink. A letter beyond takes the place of the oldest, which counts as undelivered.
const MAX_WAITING: usize = 16_384;
/// Letters kept that the sink did not take.
const MAX_UNDELIVERED: usize = 1024;
/// How long the sink may take for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The letters of one tier.
pub(crate) struct Letters {
    sink: Arc<dyn DeadLetterSink>,
    runtime: RuntimeHandle,
    outbox: Arc<Outbox>,
    /// Keeps a letter's write until the letter was delivered: one that was not is pending again after a restart.
    keeper: Arc<Keeper>,
    state: Mutex<State>,
    /// Told when none waits any more.
    delivered: Event,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<DeadLetter>,
    /// Whether a task delivers them.
    delivering: bool,
    undelivered: VecDeque<DeadLetter>,
    delivered_total: u64,
    undelivered_total: u64,
}

/// Should the task die of a panic, another one takes over.
struct Running(Arc<Letters>);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.start();
        }
    }
}

impl Letters {
    pub(crate) fn new(
        sink: Arc<dyn DeadLetterSink>,
        runtime: &RuntimeHandle,
        outbox: &Arc<Outbox>,
        keeper: &Arc<Keeper>,
    ) -> Arc<Self> {
        let (runtime, outbox, keeper) = (runtime.clone(), Arc::clone(outbox), Arc::clone(keeper));
        Arc::new(Self { sink, runtime, outbox, keeper, state: Mutex::default(), delivered: Event::new() })
    }

    /// Takes letters on their way. Under no lock.
    pub(crate) fn post(self: &Arc<Self>, letters: Vec<DeadLetter>) {
        if letters.is_empty() {
            return;
        }
        for letter in &letters {
            self.outbox.note(EventKind::DeadLettered { key: letter.key.clone(), reason: letter.reason });
        }
        let mut over = Vec::new();
        let start = {
            let mut state = self.lock();
            state.waiting.extend(letters);
            while state.waiting.len() > MAX_WAITING {
                let Some(letter) = state.waiting.pop_front() else { break };
                over.extend(self.keep(&mut state, letter));
            }
            !std::mem::replace(&mut state.delivering, true)
        };
        over.into_iter().for_each(drop_quietly);
        self.outbox.tell();
        if start {
            self.start();
        }
    }

    fn start(self: &Arc<Self>) {
        let letters = Arc::clone(self);
        self.runtime.spawn(async move {
            let _running = Running(Arc::clone(&letters));
            letters.run().await;
        });
    }

    async fn run(self: Arc<Self>) {
        loop {
            let letter = {
                let mut state = self.lock();
                let Some(letter) = state.waiting.front().cloned() else {
                    state.delivering = false;
                    break;
                };
                letter
            };
            // Whoever is handed the letter may redrive it before the sink returns: what is put down then is kept.
            let put = self.keeper.number(&letter.key, letter.stamp);
            let deadline = self.runtime.now().after(PATIENCE);
            let delivery = AssertUnwindSafe(self.sink.deliver(&letter)).catch_unwind();
            let taken = matches!(self.runtime.deadline(deadline, delivery).await, Some(Ok(Ok(()))));
            if let Some(number) = put.filter(|_| taken) {
                self.keeper.settled_at(&letter.key, number);
            }
            let over = {
                let mut state = self.lock();
                // It may have made room for newer ones meanwhile, and been counted then.
                let first = state.waiting.front();
                let waits = first.is_some_and(|first| first.stamp == letter.stamp && first.key == letter.key);
                let first = if waits { state.waiting.pop_front() } else { None };
                match (waits, taken) {
                    (false, _) => (first, None),
                    (true, true) => {
                        state.delivered_total += 1;
                        (first, None)
                    }
                    (true, false) => (first, self.keep(&mut state, letter.clone())),
                }
            };
            drop_quietly((over, letter));
            self.outbox.tell();
        }
        self.delivered.notify(usize::MAX);
    }

    /// Keeps a letter that the sink did not take, as long as there is room. Returns what gives way to it, to be dropped
    /// outside the lock: its value's destructor is the user's.
    fn keep(&self, state: &mut State, letter: DeadLetter) -> Option<DeadLetter> {
        state.undelivered_total += 1;
        self.outbox.note(EventKind::DeadLetterUndelivered { key: letter.key.clone() });
        state.undelivered.push_back(letter);
        if state.undelivered.len() > MAX_UNDELIVERED { state.undelivered.pop_front() } else { None }
    }

    /// Waits until every letter has been handed on, one way or the other.
    pub(crate) async fn settled(&self) {
        loop {
            let delivered = self.delivered.listen();
            if !self.lock().delivering {
                return;
            }
            delivered.await;
        }
    }

    /// Letters that wait, that the sink has taken, and that it has not.
    pub(crate) fn counts(&self) -> (usize, u64, u64) {
        let state = self.lock();
        (state.waiting.len(), state.delivered_total, state.undelivered_total)
    }

    /// Hands out what the sink did not take.
    pub(crate) fn take_undelivered(&self) -> Vec<DeadLetter> {
        self.lock().undelivered.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
