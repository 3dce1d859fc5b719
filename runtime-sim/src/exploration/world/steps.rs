//! What the callers do, step by step, and how long each step may take.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::composition::{ReadPolicy, WritePolicy};
use tierkeep::runtime::TaskError;

use super::super::behind::BehindPlan;
use super::super::scenario::{Loader, Step, StepKind, TierPlan};
use super::super::tiers::RESTARTS;
use super::watch::{Loading, Mutating};
use super::{Row, World, lock};
use crate::history::{Change, Violation};

/// Polls, timers and jobs beyond its deadlines that a call may be held up by, in virtual time.
const SLACK: Duration = Duration::from_millis(10);

/// For how long a step tries to crash an actor often enough.
const CRASHING: Duration = Duration::from_millis(500);

/// What a loader that panics says.
const LOADER_PANICS: &str = "the loader panics";

impl World {
    pub(super) async fn caller(self: Arc<Self>, caller: usize) {
        for step in self.scenario.steps.iter().filter(|step| step.caller == caller) {
            self.runtime.sleep(step.pause).await;
            self.step(step).await;
        }
    }

    async fn step(self: &Arc<Self>, step: &Step) {
        let began = self.runtime.now();
        let (world, kind) = (Arc::clone(self), step.kind.clone());
        let act = async move { world.act(&kind).await };
        let ended = match step.patience {
            None => match self.runtime.spawn(act).await {
                Ok(()) => Some(Ok(())),
                Err(TaskError::Panicked(message)) => Some(Err(message)),
                Err(TaskError::Aborted) => Some(Err("aborted".to_owned())),
            },
            Some(patience) => {
                let guarded = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(act));
                let ended = self.runtime.deadline(began.after(patience), guarded).await;
                ended.map(|ended| ended.map_err(|panic| message(&*panic)))
            }
        };
        let Some(ended) = ended else { return };
        let took = self.runtime.now().since(began);
        if took > self.allowed(&step.kind) {
            let what = format!("step {} ({:?}) took {took:?}", step.id, step.kind);
            self.violation(Violation::Late { what });
        }
        if let Err(message) = ended {
            // A caller gets the panic of its own loader, and no other.
            let own = matches!(step.kind, StepKind::Load(_, Loader::Panics(_))) && message == LOADER_PANICS;
            if !own {
                let what = format!("step {} ({:?}): {message}", step.id, step.kind);
                self.violation(Violation::Panic { what });
            }
        }
    }

    /// How long a step may take.
    fn allowed(&self, kind: &StepKind) -> Duration {
        let tiers = &self.scenario.tiers;
        let reads = || tiers.iter().map(|tier| tier.read_deadline);
        let writes = || {
            let block = |tier: &TierPlan| tier.behind.as_ref().map(BehindPlan::longest).unwrap_or_default();
            // Written through, it may wait for the mailbox too.
            tiers.iter().map(move |tier| tier.write_deadline + block(tier))
        };
        let in_turn: Duration = reads().sum();
        let read = match self.scenario.read {
            ReadPolicy::Sequential => in_turn,
            _ => reads().max().unwrap_or_default(),
        };
        let write = writes().max().unwrap_or_default();
        SLACK
            + match kind {
                StepKind::Get(_) => read,
                StepKind::Contains(_) => in_turn,
                // One call for each of the two regions.
                StepKind::GetMany(_) => read * 2,
                StepKind::Set(_) | StepKind::SetFor(..) | StepKind::SetMany(_)
                    if self.scenario.write == WritePolicy::Sequential =>
                {
                    writes().sum()
                }
                // A last read may begin before the load's deadline, and tiers with a port are filled in turn.
                StepKind::Load(..) => self.scenario.load_deadline + read + writes().sum::<Duration>(),
                StepKind::CrashLoop(_) => CRASHING,
                _ => write,
            }
    }

    async fn act(&self, kind: &StepKind) {
        match kind {
            StepKind::Get(key) => {
                let read = self.begin_read();
                let hit = self.region(*key).get(key).await;
                self.check(*key, hit.as_ref(), read);
            }
            StepKind::GetMany(keys) => {
                let read = self.begin_read();
                let (set, row): (Vec<u64>, Vec<u64>) =
                    keys.iter().partition(|&&key| key < self.scenario.sets);
                for keys in [set, row] {
                    let Some(&first) = keys.first() else { continue };
                    let hits = self.region(first).get_many(&keys).await;
                    for (key, hit) in keys.iter().zip(&hits) {
                        self.check(*key, hit.as_ref(), read);
                    }
                }
            }
            StepKind::Contains(key) => {
                self.region(*key).contains(key).await;
            }
            StepKind::Set(key) => self.set(&[*key], None).await,
            StepKind::SetFor(key, ttl) => self.set(&[*key], Some(*ttl)).await,
            StepKind::SetMany(keys) => self.set(keys, None).await,
            StepKind::Remove(key) => {
                // Of a row it says nothing: the next load may bring the same value back.
                let _mutating = Mutating::begin(self);
                let change = (*key < self.scenario.sets).then(|| self.history.begin(*key, None));
                let _ = self.region(*key).remove(key).await;
                self.complete(change);
            }
            StepKind::Update(key) => self.update(*key).await,
            StepKind::Load(key, loader) => self.load(*key, *loader).await,
            StepKind::ClearRegion => {
                let changes = self.begin_clear();
                let _ = self.set_rows.clear().await;
                self.complete(changes);
            }
            StepKind::ClearAll => {
                let changes = self.begin_clear();
                let alone = self.alone();
                let _ = self.cache.clear().await;
                self.complete(changes);
                if alone.is_some() && alone == self.alone() {
                    self.check_cleared();
                }
            }
            StepKind::CrashTier(tier) => {
                self.crash(*tier);
            }
            StepKind::CrashLoop(tier) => {
                let end = self.runtime.now().after(CRASHING);
                let mut left = RESTARTS + 1;
                while left > 0 && self.runtime.now() < end {
                    left -= u32::from(self.crash(*tier));
                    self.runtime.sleep(Duration::from_millis(1)).await;
                }
            }
            StepKind::CrashSupervisor => {
                let struck = self.cache.crash_supervisor();
                self.watch().strike("crash_supervisor", u64::from(struck));
            }
            StepKind::JumpWall(millis) => {
                self.watch().strike("wall_jump", 1);
                self.sim.jump_wall(*millis);
            }
        }
    }

    fn crash(&self, tier: usize) -> bool {
        let struck = self.cache.crash_tier(&format!("t{tier}"));
        self.watch().strike("crash_tier", u64::from(struck));
        struck
    }

    async fn set(&self, keys: &[u64], ttl: Option<Duration>) {
        let _mutating = Mutating::begin(self);
        let mut unique: Vec<u64> = keys.to_vec();
        unique.sort_unstable();
        unique.dedup();
        let rows: Vec<(u64, u64)> = {
            let mut watch = self.watch();
            unique.iter().map(|&key| (key, watch.fresh())).collect()
        };
        let changes: Vec<_> = rows.iter().map(|&(key, value)| self.history.begin(key, Some(value))).collect();
        let row =
            |value: u64| Row { id: value, padding: vec![0xab; usize::try_from(value % 97).unwrap_or(0)] };
        if let [(key, value)] = rows[..] {
            let _ = match ttl {
                Some(ttl) => self.set_rows.set_for(&key, row(value), ttl).await,
                None => self.set_rows.set(&key, row(value)).await,
            };
        } else {
            let _ = self.set_rows.set_many(rows.iter().map(|(key, value)| (key, row(*value)))).await;
        }
        self.complete_for(changes, ttl.or(self.scenario.ttl));
    }

    /// As an application does: the database first, then the cache.
    async fn update(&self, key: u64) {
        let _mutating = Mutating::begin(self);
        let value = self.watch().fresh();
        let change = self.history.begin(key, Some(value));
        // From here on loads may see the new row, although the old one is still cached.
        self.watch().database.insert(key, value);
        let _ = self.db_rows.remove(&key).await;
        // Without an expiry: its value lives from whenever it is loaded.
        change.complete();
        self.watch().outcome.checked += 1;
    }

    async fn load(&self, key: u64, loader: Loader) {
        let read = self.begin_read();
        let runtime = self.runtime.clone();
        // Until this returns or is dropped, what it loads may be stored.
        let pending = Mutex::new(None);
        let loaded = self
            .db_rows
            .get_or_load(&key, || async {
                match loader {
                    Loader::Fails(after) => {
                        runtime.sleep(after).await;
                        Err(std::io::Error::other("the database is away"))
                    }
                    Loader::Panics(after) => {
                        runtime.sleep(after).await;
                        std::panic::panic_any(LOADER_PANICS);
                    }
                    Loader::Reads(before, after) => {
                        runtime.sleep(before).await;
                        let id = self.watch().database.get(&key).copied().unwrap_or(0);
                        *lock(&pending) = Some(Loading::begin(self, key, id));
                        runtime.sleep(after).await;
                        Ok(Row { id, padding: Vec::new() })
                    }
                }
            })
            .await;
        drop(pending);
        self.check(key, loaded.as_ref().ok(), read);
    }

    fn begin_clear(&self) -> Vec<Change<'_>> {
        (0..self.scenario.sets).map(|key| self.history.begin(key, None)).collect()
    }

    fn complete<'h>(&self, changes: impl IntoIterator<Item = Change<'h>>) {
        self.complete_for(changes, self.scenario.ttl);
    }

    fn complete_for<'h>(&self, changes: impl IntoIterator<Item = Change<'h>>, ttl: Option<Duration>) {
        self.watch().outcome.checked += 1;
        let dead_from = ttl.map(|ttl| self.runtime.wall().after(ttl));
        for change in changes {
            match dead_from {
                Some(wall) => change.complete_until(wall),
                None => change.complete(),
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "something".to_owned())
}
