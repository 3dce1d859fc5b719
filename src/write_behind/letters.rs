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
        let start = {
            let mut state = self.lock();
            state.waiting.extend(letters);
            while state.waiting.len() > MAX_WAITING {
                let Some(letter) = state.waiting.pop_front() else { break };
                self.keep(&mut state, letter);
            }
            !std::mem::replace(&mut state.delivering, true)
        };
        self.outbox.tell();
        if start {
            let letters = Arc::clone(self);
            self.runtime.spawn(async move { letters.run().await });
        }
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
            let deadline = self.runtime.now().after(PATIENCE);
            let delivery = AssertUnwindSafe(self.sink.deliver(&letter)).catch_unwind();
            let taken = matches!(self.runtime.deadline(deadline, delivery).await, Some(Ok(Ok(()))));
            if taken {
                self.keeper.settled(&letter.key, letter.stamp);
            }
            {
                let mut state = self.lock();
                // It may have made room for newer ones meanwhile, and been counted then.
                let first = state.waiting.front();
                if first.is_some_and(|first| first.stamp == letter.stamp && first.key == letter.key) {
                    state.waiting.pop_front();
                    match taken {
                        true => state.delivered_total += 1,
                        false => self.keep(&mut state, letter),
                    }
                }
            }
            self.outbox.tell();
        }
        self.delivered.notify(usize::MAX);
    }

    /// Keeps a letter that the sink did not take, as long as there is room.
    fn keep(&self, state: &mut State, letter: DeadLetter) {
        state.undelivered_total += 1;
        self.outbox.note(EventKind::DeadLetterUndelivered { key: letter.key.clone() });
        state.undelivered.push_back(letter);
        if state.undelivered.len() > MAX_UNDELIVERED {
            state.undelivered.pop_front();
        }
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
