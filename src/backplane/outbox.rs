//! What waits to be published: one note per key, the newest, up to a limit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};

use super::packet::{Action, Note};
use crate::backend::Scope;
use crate::key::{CacheKey, KeyHash};
use crate::value::Stamp;

#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    limit: usize,
    filled: Event,
}

#[derive(Debug, Default)]
struct Queue {
    /// Keys in the order in which they came to wait.
    order: VecDeque<CacheKey>,
    /// By key: the newest stamp, and whether the key was removed.
    keys: HashMap<CacheKey, (Stamp, bool), KeyHash>,
    clears: Vec<(Scope, Stamp)>,
    /// Notes were dropped up to this one.
    resync: Option<Stamp>,
}

/// Clears that wait, at most; more become a resync.
const MAX_CLEARS: usize = 64;

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: Mutex::default(), limit, filled: Event::new() }
    }

    /// Adds a key; returns `false` if all that waited was given up for a resync.
    pub(super) fn push(&self, key: &CacheKey, stamp: Stamp, removed: bool) -> bool {
        let kept = {
            let mut queue = self.lock();
            if let Some(waiting) = queue.keys.get_mut(key) {
                *waiting = (stamp, removed).max(*waiting);
                return true;
            }
            // What a resync covers need not be named as well.
            if queue.resync.is_none() && queue.keys.len() < self.limit {
                queue.keys.insert(key.clone(), (stamp, removed));
                queue.order.push_back(key.clone());
                true
            } else {
                queue.give_up(stamp)
            }
        };
        self.filled.notify(1);
        kept
    }

    /// Adds a clear; returns `false` if all that waited was given up for a resync.
    pub(super) fn push_clear(&self, scope: &Scope, stamp: Stamp) -> bool {
        let kept = {
            let mut queue = self.lock();
            if queue.clears.len() < MAX_CLEARS {
                queue.clears.push((scope.clone(), stamp));
                true
            } else {
                queue.give_up(stamp)
            }
        };
        self.filled.notify(1);
        kept
    }

    /// Up to `limit` notes, those that say most first.
    pub(super) fn take(&self, limit: usize) -> Vec<Note> {
        let mut queue = self.lock();
        let mut notes = Vec::new();
        if let Some(stamp) = queue.resync.take() {
            notes.push(Note { action: Action::Resync, stamp });
        }
        for (scope, stamp) in std::mem::take(&mut queue.clears) {
            let region = match scope {
                Scope::Prefix(region) => Some(region.to_string()),
                Scope::All => None,
            };
            notes.push(Note { action: Action::Clear(region), stamp });
        }
        while notes.len() < limit {
            let Some(key) = queue.order.pop_front() else { break };
            let Some((stamp, removed)) = queue.keys.remove(&key) else { continue };
            let text = key.as_str().to_owned();
            let action = if removed { Action::Remove(text) } else { Action::Invalidate(text) };
            notes.push(Note { action, stamp });
        }
        notes
    }

    pub(super) fn len(&self) -> usize {
        let queue = self.lock();
        queue.keys.len() + queue.clears.len() + usize::from(queue.resync.is_some())
    }

    /// Told when something has come; to be asked for before the look.
    pub(super) fn filled(&self) -> EventListener {
        self.filled.listen()
    }

    /// Wakes whoever sends.
    pub(super) fn wake(&self) {
        self.filled.notify(usize::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn give_up(&mut self, stamp: Stamp) -> bool {
        let first = self.resync.is_none();
        self.resync = Some(self.resync.map_or(stamp, |newest| newest.max(stamp)));
        self.keys.clear();
        self.order.clear();
        !first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPart;

    fn key(n: usize) -> CacheKey {
        CacheKey::new("k", 1, [KeyPart::flag(n.to_string())])
    }

    fn at(time: u64) -> Stamp {
        Stamp { time, node: 1 }
    }

    #[test]
    fn a_key_waits_once_with_its_newest_stamp() {
        let outbox = Outbox::new(10);
        outbox.push(&key(1), at(5), false);
        outbox.push(&key(2), at(6), false);
        outbox.push(&key(1), at(7), true);
        outbox.push(&key(1), at(4), false);
        let notes = outbox.take(10);
        assert_eq!(notes.len(), 2);
        assert_eq!(notes[0], Note { action: Action::Remove(key(1).to_string()), stamp: at(7) });
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn past_its_limit_everything_is_to_be_dropped_instead() {
        let outbox = Outbox::new(3);
        for n in 0..10 {
            outbox.push(&key(n), at(n as u64 + 1), false);
        }
        let notes = outbox.take(10);
        assert_eq!(notes, [Note { action: Action::Resync, stamp: at(10) }]);
        assert!(outbox.push(&key(1), at(11), false), "it names keys again");
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn too_many_clears_are_an_overflow_told_once() {
        let outbox = Outbox::new(3);
        let told: Vec<_> = (1..=70).map(|time| outbox.push_clear(&Scope::All, at(time))).collect();
        assert_eq!(told.iter().filter(|kept| !**kept).count(), 1);
        assert!(!told[MAX_CLEARS]);
    }

    #[test]
    fn a_batch_takes_so_many() {
        let outbox = Outbox::new(100);
        for n in 0..10 {
            outbox.push(&key(n), at(1), false);
        }
        assert_eq!((outbox.take(4).len(), outbox.take(4).len(), outbox.take(4).len()), (4, 4, 2));
    }
}
