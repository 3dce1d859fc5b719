//! The way of dead letters to their sink: one at a time, in their order, never lost in silence.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_util::FutureExt;

use super::dead_letter::{DeadLetter, DeadLetterSink};
use super::keeper::Keeper;
use super::options::WriteBehindOptions;
use crate::observe::{EventKind, Outbox};
use crate::runtime::RuntimeHandle;
use crate::runtime::host::drop_quietly;

/// Letters that wait for the sink, beside the bound in bytes. A letter beyond takes the place of the oldest, which
/// counts as undelivered.
const MAX_WAITING: usize = 16_384;
/// Letters kept that the sink did not take, beside the bound in bytes.
const MAX_UNDELIVERED: usize = 1024;
/// How long the sink may take for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The letters of one tier.
pub(crate) struct Letters {
    sink: Arc<dyn DeadLetterSink>,
    runtime: RuntimeHandle,
    outbox: Arc<Outbox>,
    /// What letters that wait may weigh, and those that the sink did not take: each as much as the queue.
    bytes: usize,
    /// Keeps a letter's write until the letter was delivered: one that was not is pending again after a restart.
    keeper: Arc<Keeper>,
    state: Mutex<State>,
    /// Told when none waits any more.
    delivered: Event,
}

#[derive(Default)]
struct State {
    waiting: Row,
    /// Whether a task delivers them.
    delivering: bool,
    undelivered: Row,
    delivered_total: u64,
    undelivered_total: u64,
}

/// A letter, and where the journal has its write.
#[derive(Clone)]
struct Posted {
    letter: DeadLetter,
    put: Option<u64>,
}

/// Letters in their order, and what they weigh.
#[derive(Default)]
struct Row {
    letters: VecDeque<Posted>,
    bytes: usize,
}

impl Row {
    fn push(&mut self, posted: Posted) {
        self.bytes += posted.letter.weight();
        self.letters.push_back(posted);
    }

    fn pop(&mut self) -> Option<Posted> {
        let posted = self.letters.pop_front()?;
        self.bytes -= posted.letter.weight();
        Some(posted)
    }

    /// Takes out the oldest if they are too many or too heavy. One alone may weigh what it likes.
    fn pop_beyond(&mut self, most: usize, bytes: usize) -> Option<Posted> {
        let beyond = self.letters.len() > most || (self.bytes > bytes && self.letters.len() > 1);
        if beyond { self.pop() } else { None }
    }
}

/// Should the task be dropped, by a panic or by its runtime, nobody waits for it, and the next letter starts another.
struct Running {
    letters: Arc<Letters>,
    /// It ended by itself, and has said so.
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.letters.lock().delivering = false;
        }
        self.letters.delivered.notify(usize::MAX);
    }
}

impl Letters {
    pub(crate) fn new(
        options: &WriteBehindOptions,
        runtime: &RuntimeHandle,
        outbox: &Arc<Outbox>,
        keeper: &Arc<Keeper>,
    ) -> Arc<Self> {
        let (runtime, outbox, keeper) = (runtime.clone(), Arc::clone(outbox), Arc::clone(keeper));
        let (sink, bytes) = (Arc::clone(&options.sink), options.bytes);
        Arc::new(Self {
            sink,
            runtime,
            outbox,
            bytes,
            keeper,
            state: Mutex::default(),
            delivered: Event::new(),
        })
    }

    /// Takes letters on their way. Under no lock.
    pub(crate) fn post(self: &Arc<Self>, letters: Vec<DeadLetter>) {
        if letters.is_empty() {
            return;
        }
        for letter in &letters {
            self.outbox.note(EventKind::DeadLettered { key: letter.key.clone(), reason: letter.reason });
        }
        // Whoever is handed a letter may redrive it before the sink returns: what is put down then is kept.
        let posted = letters.into_iter().map(|letter| {
            let put = self.keeper.number(&letter.key, letter.stamp);
            Posted { letter, put }
        });
        let posted = posted.collect::<Vec<_>>().into_iter();
        let mut over = Vec::new();
        let start = {
            let mut state = self.lock();
            posted.for_each(|posted| state.waiting.push(posted));
            while let Some(posted) = state.waiting.pop_beyond(MAX_WAITING, self.bytes) {
                over.extend(self.keep(&mut state, posted));
            }
            !std::mem::replace(&mut state.delivering, true)
        };
        self.let_go(over);
        self.outbox.tell();
        if start {
            self.start();
        }
    }

    fn start(self: &Arc<Self>) {
        // Made here: the task may be dropped without a turn.
        let running = Running { letters: Arc::clone(self), ended: false };
        self.runtime.spawn(async move {
            let mut running = running;
            running.letters.run().await;
            running.ended = true;
        });
    }

    async fn run(&self) {
        loop {
            let posted = {
                let mut state = self.lock();
                let Some(posted) = state.waiting.letters.front().cloned() else {
                    state.delivering = false;
                    return;
                };
                posted
            };
            let letter = &posted.letter;
            let deadline = self.runtime.now().after(PATIENCE);
            // Made inside: a sink written by hand may panic before there is a future.
            let delivery = AssertUnwindSafe(async { self.sink.deliver(letter).await }).catch_unwind();
            let taken = matches!(self.runtime.deadline(deadline, delivery).await, Some(Ok(Ok(()))));
            if taken {
                self.forget(&posted);
            }
            let over = {
                let mut state = self.lock();
                // It may have made room for newer ones meanwhile, and been counted then.
                let first = state.waiting.letters.front();
                let same = |first: &DeadLetter| first.stamp == letter.stamp && first.key == letter.key;
                let waits = first.is_some_and(|first| same(&first.letter));
                let first = if waits { state.waiting.pop() } else { None };
                match (waits, taken) {
                    (false, _) => (first, Vec::new()),
                    (true, true) => {
                        state.delivered_total += 1;
                        (first, Vec::new())
                    }
                    (true, false) => (first, self.keep(&mut state, posted.clone())),
                }
            };
            let (first, over) = over;
            drop_quietly((first, posted));
            self.let_go(over);
            self.outbox.tell();
        }
    }

    /// Keeps a letter that the sink did not take, as long as there is room. Returns what gives way to it, to be dropped
    /// outside the lock: its value's destructor is the user's.
    fn keep(&self, state: &mut State, posted: Posted) -> Vec<Posted> {
        state.undelivered_total += 1;
        self.outbox.note(EventKind::DeadLetterUndelivered { key: posted.letter.key.clone() });
        state.undelivered.push(posted);
        std::iter::from_fn(|| state.undelivered.pop_beyond(MAX_UNDELIVERED, self.bytes)).collect()
    }

    /// Drops letters that nobody has taken and for which there is no room: a journal need not keep what they hold either,
    /// or it would grow as long as the sink fails.
    fn let_go(&self, letters: Vec<Posted>) {
        for posted in letters {
            self.forget(&posted);
            drop_quietly(posted);
        }
    }

    fn forget(&self, posted: &Posted) {
        if let Some(number) = posted.put {
            self.keeper.settled_at(&posted.letter.key, number);
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
        (state.waiting.letters.len(), state.delivered_total, state.undelivered_total)
    }

    /// Hands out what the sink did not take.
    pub(crate) fn take_undelivered(&self) -> Vec<DeadLetter> {
        let letters = std::mem::take(&mut self.lock().undelivered).letters;
        letters.iter().for_each(|posted| self.forget(posted));
        letters.into_iter().map(|posted| posted.letter).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
