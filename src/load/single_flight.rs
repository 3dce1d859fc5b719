//! Single flight: concurrent loads of a key become one.
//!
//! The first caller leads; the others wait for its result. A leader that is dropped or panics abandons the flight, and
//! a waiter takes over with its own loader, so a cancelled request never leaves others hanging. A mutation *detaches*
//! the flight: those who joined before get its result, whoever asks later starts a new one, since the load may have
//! read what the mutation replaced (its fill is voided by its fence).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};

use crate::backend::Scope;
use crate::error::Result;
use crate::key::{CacheKey, KeyHash};
use crate::planted::{Plant, planted};
use crate::value::{Meta, Object};

const SHARDS: usize = 16;

/// What a flight brings home.
pub(crate) type Landed = Result<(Object, Meta)>;

/// The flights of one engine.
#[derive(Default)]
pub(crate) struct Flights {
    shards: [Mutex<HashMap<CacheKey, Arc<Flight>, KeyHash>>; SHARDS],
}

/// One load, shared.
pub(crate) struct Flight {
    state: Mutex<State>,
    landed: Event,
}

enum State {
    Flying,
    Landed(Landed),
    Abandoned,
}

/// What a caller does about a flight.
pub(crate) enum Role<'a> {
    /// Run the loader, then [`land`](Lead::land).
    Lead(Lead<'a>),
    /// Wait for the one who does.
    Join(Arc<Flight>),
}

/// The duty to land a flight. Dropped without, the flight is abandoned and a waiter takes over.
pub(crate) struct Lead<'a> {
    flights: &'a Flights,
    key: CacheKey,
    flight: Arc<Flight>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, HashMap<CacheKey, Arc<Flight>, KeyHash>> {
        let index = (key.hash_u64() >> 48) as usize % SHARDS;
        lock(&self.shards[index])
    }

    /// Joins the key's flight, or starts one.
    pub(crate) fn enter(&self, key: &CacheKey) -> Role<'_> {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(key) {
            return Role::Join(Arc::clone(flight));
        }
        let flight = Arc::new(Flight { state: Mutex::new(State::Flying), landed: Event::new() });
        shard.insert(key.clone(), Arc::clone(&flight));
        Role::Lead(Lead { flights: self, key: key.clone(), flight })
    }

    /// A mutation of `key` began: later callers start anew.
    pub(crate) fn detach(&self, key: &CacheKey) {
        if !planted(Plant::LateJoiner) {
            self.shard(key).remove(key);
        }
    }

    /// A clear of `scope` began: later callers start anew.
    pub(crate) fn detach_scope(&self, scope: &Scope) {
        for shard in &self.shards {
            lock(shard).retain(|key, _| !scope.covers(key.prefix()));
        }
    }

    /// Flights that can be joined.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Flight {
    /// What the leader brought home; `None` if it abandoned the flight. Cancel-safe.
    pub(crate) async fn wait(&self) -> Option<Landed> {
        loop {
            let listener: EventListener = self.landed.listen();
            match &*lock(&self.state) {
                State::Flying => {}
                State::Landed(landed) => return Some(landed.clone()),
                State::Abandoned => return None,
            }
            listener.await;
        }
    }
}

impl Lead<'_> {
    /// Gives the result to everyone who waits, and to those who ask until this is dropped.
    pub(crate) fn land(&self, landed: Landed) {
        *lock(&self.flight.state) = State::Landed(landed);
        self.flight.landed.notify(usize::MAX);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        {
            let mut shard = self.flights.shard(&self.key);
            // After a detach, the key may have a newer flight.
            if shard.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                shard.remove(&self.key);
            }
        }
        {
            let mut state = lock(&self.flight.state);
            if matches!(*state, State::Flying) {
                *state = State::Abandoned;
            }
        }
        self.flight.landed.notify(usize::MAX);
    }
}
