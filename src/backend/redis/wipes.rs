//! Clears in plain mode, where no stamps tell what is older: everything that is found in the scope is deleted, in the
//! background, and reads as absent here until then.
//!
//! What this process writes after the clear is spared and shown. A clear that is asked for again, because its first
//! call failed, goes on instead of beginning anew.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_listener::Event;

use super::deletions::{FIRST_RETRY, Progress, sweep};
use super::keyspace::Keyspace;
use super::servers::Servers;
use super::shared::Shared;
use super::turns::{Turns, Waiting};
use crate::backend::{BackendResult, Scope};
use crate::error::Error;
use crate::key::CacheKey;
use crate::runtime::jitter;
use crate::value::Stamp;

/// For how long a clear is waited for; most are done by then.
const PATIENCE: Duration = Duration::from_millis(100);

/// The longest time between two attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Clears that wait or are remembered; past it, those that wait become one over everything.
const MAX_WIPES: usize = 64;

/// Names that are spared by a clear; what is written past it is absent until the clear is done, and may go.
const MAX_WRITTEN: usize = 100_000;

#[derive(Default)]
pub(super) struct Wipes {
    work: Arc<Turns<Work>>,
    /// Whether any is under way: most reads and writes need not look.
    any: AtomicBool,
    /// Told when one has ended, or failed for the first time.
    changed: Event,
}

#[derive(Default)]
struct Work {
    /// The oldest first, each scope once.
    waiting: VecDeque<Wipe>,
    /// Those that have ended last.
    done: VecDeque<(Scope, Stamp)>,
}

impl Waiting for Work {
    type Piece = (Scope, Stamp);

    fn next(&self) -> Option<Self::Piece> {
        self.waiting.front().map(|wipe| (wipe.scope.clone(), wipe.stamp))
    }
}

struct Wipe {
    scope: Scope,
    stamp: Stamp,
    /// Names that this process has written since.
    written: HashSet<Vec<u8>>,
    failed: Option<Error>,
}

impl Wipe {
    fn new(scope: Scope, stamp: Stamp) -> Self {
        Self { scope, stamp, written: HashSet::new(), failed: None }
    }

    fn is(&self, (scope, stamp): &(Scope, Stamp)) -> bool {
        self.scope == *scope && self.stamp == *stamp
    }
}

impl Work {
    /// Adds a clear, unless it is known.
    fn add(&mut self, scope: &Scope, stamp: Stamp) {
        let is_newer = |(known, at): (&Scope, Stamp)| known == scope && at >= stamp;
        if self.done.iter().any(|(known, at)| is_newer((known, *at)))
            || self.waiting.iter().any(|wipe| is_newer((&wipe.scope, wipe.stamp)))
        {
            return;
        }
        self.waiting.retain(|wipe| wipe.scope != *scope);
        self.waiting.push_back(Wipe::new(scope.clone(), stamp));
        if self.waiting.len() > MAX_WIPES {
            let newest = self.waiting.iter().map(|wipe| wipe.stamp).max().unwrap_or(stamp);
            self.waiting = [Wipe::new(Scope::All, newest)].into();
        }
    }

    fn find(&mut self, which: &(Scope, Stamp)) -> Option<&mut Wipe> {
        self.waiting.iter_mut().find(|wipe| wipe.is(which))
    }

    fn end(&mut self, which: &(Scope, Stamp)) {
        self.waiting.retain(|wipe| !wipe.is(which));
        self.done.push_back(which.clone());
        if self.done.len() > MAX_WIPES {
            self.done.pop_front();
        }
    }

    /// What a call for this clear is answered; `None`: it is under way.
    fn outcome(&self, scope: &Scope, stamp: Stamp) -> Option<BackendResult<()>> {
        let covers = |wipe: &&Wipe| (wipe.scope == *scope || wipe.scope == Scope::All) && wipe.stamp >= stamp;
        match self.waiting.iter().find(covers) {
            Some(wipe) => wipe.failed.clone().map(Err),
            None => Some(Ok(())),
        }
    }
}

impl Wipes {
    /// Clears a scope. Returns once all is deleted, or the deletion goes well after a while: it then goes on by itself.
    ///
    /// # Errors
    /// Of the deletion, which is then tried again until it succeeds.
    pub(super) async fn wipe(
        self: &Arc<Self>,
        scope: &Scope,
        stamp: Stamp,
        shared: &Arc<Shared>,
        servers: &Arc<Servers>,
    ) -> BackendResult<()> {
        let runtime = shared.runtime()?;
        self.work.with(|work| {
            work.add(scope, stamp);
            self.any.store(!work.waiting.is_empty(), Ordering::SeqCst);
        });
        self.resume(shared, servers);
        let until = runtime.now().after(PATIENCE);
        loop {
            let changed = self.changed.listen();
            if let Some(outcome) = self.work.with(|work| work.outcome(scope, stamp)) {
                return outcome;
            }
            if runtime.deadline(until, changed).await.is_none() {
                return Ok(());
            }
        }
    }

    /// A value is about to be written under a name.
    pub(super) fn wrote(&self, key: &CacheKey, name: &[u8], stamp: Option<Stamp>) {
        if !self.any.load(Ordering::SeqCst) {
            return;
        }
        self.work.with(|work| {
            for wipe in &mut work.waiting {
                let is_later = stamp.is_none_or(|stamp| stamp.time > wipe.stamp.time);
                if is_later && wipe.scope.covers(key.prefix()) && wipe.written.len() < MAX_WRITTEN {
                    wipe.written.insert(name.to_vec());
                }
            }
        });
    }

    /// Whether what stands under a key may be what a clear has yet to delete. To be asked before it is read.
    pub(super) fn hides(&self, key: &CacheKey, keyspace: &Keyspace) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let name = keyspace.name(key);
        let hides = |wipe: &Wipe| wipe.scope.covers(key.prefix()) && !wipe.written.contains(&name);
        self.work.with(|work| work.waiting.iter().any(hides))
    }

    /// Goes on with what is to be deleted, unless someone is at it.
    pub(super) fn resume(self: &Arc<Self>, shared: &Arc<Shared>, servers: &Arc<Servers>) {
        let Ok(runtime) = shared.runtime() else { return };
        let Some(turn) = self.work.begin(shared.openings()) else { return };
        let wipes = Arc::downgrade(self);
        let (shared, servers) = (Arc::clone(shared), Arc::downgrade(servers));
        runtime.spawn(async move {
            let mut last = None;
            let (mut progress, mut pause) = (Progress::default(), FIRST_RETRY);
            while let Some(next) = turn.next() {
                let (Some(wipes), Some(servers)) = (wipes.upgrade(), servers.upgrade()) else { return };
                if last.as_ref() != Some(&next) {
                    (progress, pause) = (Progress::default(), FIRST_RETRY);
                }
                let spare = |name: &[u8]| {
                    // Superseded by another one: nothing more is to be deleted on behalf of this one.
                    let spares =
                        |work: &mut Work| work.find(&next).is_none_or(|wipe| wipe.written.contains(name));
                    wipes.work.with(spares)
                };
                let swept = sweep(&next.0, None, &mut progress, spare, &shared, &servers).await;
                wipes.ended(&next, swept.as_ref().err());
                drop((wipes, servers));
                if swept.is_err() {
                    let Ok(runtime) = shared.runtime() else { return };
                    runtime.sleep(jitter(pause, runtime.random())).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
                last = Some(next);
            }
        });
    }

    fn ended(&self, which: &(Scope, Stamp), failed: Option<&Error>) {
        self.work.with(|work| {
            match failed {
                None => work.end(which),
                Some(error) => {
                    if let Some(wipe) = work.find(which) {
                        wipe.failed = Some(error.clone());
                    }
                }
            }
            self.any.store(!work.waiting.is_empty(), Ordering::SeqCst);
        });
        self.changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> Stamp {
        Stamp { time, node: 1 }
    }

    fn region(id: usize) -> Scope {
        Scope::Prefix(id.to_string().into())
    }

    #[test]
    fn a_clear_that_is_asked_for_again_is_not_begun_again() {
        let mut work = Work::default();
        work.add(&region(1), at(10));
        work.waiting[0].written.insert(b"later".to_vec());
        work.add(&region(1), at(10));
        assert_eq!((work.waiting.len(), work.waiting[0].written.len()), (1, 1), "it goes on");
        work.end(&(region(1), at(10)));
        work.add(&region(1), at(10));
        assert!(work.waiting.is_empty(), "it is done");
        assert!(work.outcome(&region(1), at(10)).is_some_and(|outcome| outcome.is_ok()));
        work.add(&region(1), at(11));
        assert_eq!(work.waiting.len(), 1, "another one");
    }

    #[test]
    fn too_many_become_one_over_everything() {
        let mut work = Work::default();
        for id in 0..=MAX_WIPES {
            work.add(&region(id), at(id as u64));
        }
        assert_eq!(work.waiting.len(), 1);
        assert!(work.waiting[0].is(&(Scope::All, at(MAX_WIPES as u64))));
        assert!(work.outcome(&region(3), at(3)).is_none(), "it is under way");
    }
}
