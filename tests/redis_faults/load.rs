//! What runs while Redis is broken: tasks that read, write, remove and load, every answer timed and checked.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, Error, Hit, Region};
use tierkeep_sim::history::{History, Read};

use super::pulse::Pulse;
use super::tally::Tally;

/// Keys that are set and removed.
pub(crate) const SETS: Range<u64> = 0..24;
/// Rows of a database that are loaded and invalidated.
const ROWS: Range<u64> = 24..32;

pub(crate) const READ_DEADLINE: Duration = Duration::from_millis(100);
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_millis(250);
/// By how much an answer may be later than its deadline and than the runtime's own timers were meanwhile: it takes a few
/// turns of its tasks, each of which waits for the two cores that all tests share.
const ALLOWANCE: Duration = Duration::from_millis(200);

/// A value that tells whether it is whole, longer than a corrupted frame's header.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) number: u64,
    text: String,
}

impl Row {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, text: format!("{number:0200}") }
    }
}

/// A cache at work.
pub(crate) struct Load {
    pub(crate) cache: Cache,
    pub(crate) sets: Region<Row, u64>,
    rows: Region<Row, u64>,
    runtime: RuntimeHandle,
    pulse: Pulse,
    history: History,
    database: Mutex<HashMap<u64, u64>>,
    next: AtomicU64,
    stopped: AtomicBool,
    read_only: AtomicBool,
    sets_only: AtomicBool,
    writing: AtomicU64,
    pub(crate) tally: Tally,
    pub(crate) violations: Mutex<Vec<String>>,
    /// Every error that was met, once.
    pub(crate) errors: Mutex<BTreeSet<String>>,
}

impl Load {
    pub(crate) fn new(cache: Cache, runtime: RuntimeHandle) -> Self {
        let load = Self {
            sets: cache.region("set").ttl(Duration::from_secs(600)).build().unwrap(),
            rows: cache.region("row").ttl(Duration::from_secs(600)).build().unwrap(),
            cache,
            pulse: Pulse::new(&runtime),
            runtime,
            history: History::new(),
            database: Mutex::default(),
            next: AtomicU64::new(1),
            stopped: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            sets_only: AtomicBool::new(false),
            writing: AtomicU64::new(0),
            tally: Tally::default(),
            violations: Mutex::default(),
            errors: Mutex::default(),
        };
        for key in ROWS {
            let value = load.fresh();
            load.history.begin(key, Some(value)).complete();
            load.database.lock().unwrap().insert(key, value);
        }
        load
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.pulse.stop();
    }

    /// Watches how late the runtime is, until the load is stopped.
    pub(crate) async fn watch(self: Arc<Self>) {
        self.pulse.beat(&self.runtime).await;
    }

    /// Works until it is stopped.
    pub(crate) async fn work(self: Arc<Self>) {
        while !self.stopped.load(Ordering::Relaxed) {
            let random = self.runtime.random();
            let pause = Duration::from_micros(1_000 + random % 4_000);
            self.runtime.sleep(pause).await;
            let set = SETS.start + (random >> 16) % (SETS.end - SETS.start);
            let row = ROWS.start + (random >> 24) % (ROWS.end - ROWS.start);
            if self.sets_only.load(Ordering::Relaxed) {
                self.change(55, set, row).await;
                continue;
            }
            match (random >> 32) % 100 {
                0..=49 => self.get(set).await,
                50..=54 => self.get_many().await,
                kind => self.change(kind, set, row).await,
            }
        }
    }

    async fn change(&self, kind: u64, set: u64, row: u64) {
        // Counted first: whoever pauses writes sees either the count or a writer that sees the pause.
        self.writing.fetch_add(1, Ordering::SeqCst);
        if !self.read_only.load(Ordering::SeqCst) {
            match kind {
                55..=74 => self.set(set).await,
                75..=79 => self.remove(set).await,
                80..=94 => self.load(row).await,
                _ => self.update(row).await,
            }
        }
        self.writing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Nothing but sets from here on, or everything again.
    pub(crate) fn only_set(&self, only: bool) {
        self.sets_only.store(only, Ordering::Relaxed);
    }

    #[cfg(all(feature = "cluster", feature = "sentinel"))]
    pub(crate) fn pause_writes(&self, pause: bool) {
        self.read_only.store(pause, Ordering::SeqCst);
    }

    #[cfg(all(feature = "cluster", feature = "sentinel"))]
    /// Whether nothing is being written, nor will be while writes are paused.
    pub(crate) fn is_quiet(&self) -> bool {
        let inspection = self.cache.inspect();
        let settled = inspection.tiers.iter().all(|tier| tier.calls + tier.queued + tier.ledger == 0);
        self.writing.load(Ordering::SeqCst) == 0 && settled
    }

    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn get(&self, key: u64) {
        let read = self.history.read();
        let lookup = self.timed(READ_DEADLINE, self.sets.try_get(&key)).await;
        match lookup {
            Ok(lookup) => {
                if let Some(error) = lookup.degraded.first() {
                    self.tally.degraded();
                    self.note(error);
                }
                self.check(key, lookup.hit.as_ref(), read);
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn get_many(&self) {
        let keys: Vec<_> = SETS.step_by(5).collect();
        let read = self.history.read();
        let hits = self.timed(READ_DEADLINE, self.sets.get_many(&keys)).await;
        for (key, hit) in keys.into_iter().zip(&hits) {
            self.check(key, hit.as_ref(), read);
        }
    }

    /// Sets a key to a value of its own; whether that was confirmed.
    pub(crate) async fn set(&self, key: u64) {
        self.confirmed_set(key).await;
    }

    /// As [`set`](Self::set); the value, if the cache confirmed it.
    pub(crate) async fn confirmed_set(&self, key: u64) -> Option<u64> {
        let value = self.fresh();
        let change = self.history.begin(key, Some(value));
        let done = self.timed(WRITE_DEADLINE, self.sets.set(&key, Row::new(value))).await;
        change.complete();
        done.map_err(|error| self.failed(&error)).is_ok().then_some(value)
    }

    async fn remove(&self, key: u64) {
        let change = self.history.begin(key, None);
        let done = self.timed(WRITE_DEADLINE, self.sets.remove(&key)).await;
        change.complete();
        if let Err(error) = done {
            self.failed(&error);
        }
    }

    /// As an application does: the database first, then the cache.
    async fn update(&self, key: u64) {
        let value = self.fresh();
        let change = {
            // Rows count in the order in which they were written: both under one lock.
            let mut database = self.database.lock().unwrap();
            let change = self.history.begin(key, Some(value));
            database.insert(key, value);
            change
        };
        let done = self.timed(WRITE_DEADLINE, self.rows.remove(&key)).await;
        change.complete();
        if let Err(error) = done {
            self.failed(&error);
        }
    }

    async fn load(&self, key: u64) {
        let read = self.history.read();
        let loader = || async {
            let number = self.database.lock().unwrap()[&key];
            self.runtime.sleep(Duration::from_millis(1)).await;
            Ok::<_, std::io::Error>(Row::new(number))
        };
        // The look below, and the store of what was loaded.
        let deadline = READ_DEADLINE + WRITE_DEADLINE;
        match self.timed(deadline, self.rows.get_or_load(&key, loader)).await {
            Ok(hit) => self.check(key, Some(&hit), read),
            Err(error) => self.failed(&error),
        }
    }

    async fn timed<F: Future>(&self, deadline: Duration, call: F) -> F::Output {
        let began = self.runtime.now();
        let behind = self.pulse.late(began);
        let output = call.await;
        let ended = self.runtime.now();
        let (took, stalled) = (ended.since(began), self.pulse.late(ended).saturating_sub(behind));
        let late = took.saturating_sub(deadline + stalled);
        self.tally.answered(took, late, late > ALLOWANCE);
        output
    }

    fn check(&self, key: u64, hit: Option<&Hit<Row>>, read: Read) {
        let Some(hit) = hit else { return self.tally.missed() };
        // Memory serves whatever Redis does: only hits from below show that it is there.
        self.tally.hit(hit.tier().map(|tier| tier.as_str()));
        let known = if ROWS.contains(&key) {
            self.history.check_row(key, hit.number, read)
        } else {
            self.history.check(key, hit.number, read)
        };
        let whole = hit.text == Row::new(hit.number).text;
        if let Err(violation) = known {
            self.violations.lock().unwrap().push(format!("from {:?}: {violation}", hit.tier()));
        } else if !whole {
            self.violations.lock().unwrap().push(format!("key {key}: not the text of {}", hit.number));
        }
    }

    fn failed(&self, error: &Error) {
        self.tally.failed();
        self.note(error);
    }

    fn note(&self, error: &Error) {
        let mut errors = self.errors.lock().unwrap();
        // They differ by their keys: these are enough.
        if errors.len() < 200 {
            errors.insert(format!("{error} / {error:?}"));
        }
    }
}
