//! What the world holds against the history: each hit, the cache at rest, and what the next process finds.

use std::time::Duration;

use tierkeep::runtime::ActorState;
use tierkeep::{Hit, Timestamp};

use super::super::behind;
use super::super::tiers::Stores;
use super::{Plans, Row, World, lock, open, region};
use crate::history::{Read, Violation};

/// How long a cache may take to come to rest once the faults have stopped: residual times, breakers, back-offs.
const REST: Duration = Duration::from_secs(400);

impl World {
    pub(super) fn begin_read(&self) -> (Read, Option<Timestamp>) {
        // Expiry is not checked while the wall clock jumps.
        match self.scenario.jumps {
            true => (self.history.read(), None),
            false => {
                let wall = self.runtime.wall();
                (self.history.read_at(wall), Some(wall))
            }
        }
    }

    pub(super) fn check(&self, key: u64, hit: Option<&Hit<Row>>, (read, wall): (Read, Option<Timestamp>)) {
        let mut watch = self.watch();
        watch.outcome.checked += 1;
        let Some(hit) = hit else { return };
        watch.outcome.hits += 1;
        if self.scenario.lying {
            return;
        }
        let checked = if key < self.scenario.sets {
            self.history.check(key, hit.id, read)
        } else {
            self.history.check_row(key, hit.id, read).and_then(|()| watch.check_life(key, hit.id, wall))
        };
        if let Err(violation) = checked {
            let from = hit.tier().map_or("a load", |tier| tier.as_str()).to_owned();
            let violation = match violation {
                Violation::Superseded { what } => {
                    Violation::Superseded { what: format!("{what}, from {from}") }
                }
                Violation::Expired { what } => Violation::Expired { what: format!("{what}, from {from}") },
                other => other,
            };
            watch.outcome.violations.push(violation);
        }
    }

    /// How many mutations there have been, if none is under way.
    pub(super) fn alone(&self) -> Option<u64> {
        let watch = self.watch();
        (watch.mutating == 0).then_some(watch.mutations)
    }

    /// Everything was cleared, and nothing came meanwhile: nothing is queued.
    pub(super) fn check_cleared(&self) {
        for tier in self.cache.inspect().tiers {
            let queued = tier.write_behind.map_or(0, |queue| queue.queued);
            if queued > 0 {
                let what = format!("{}: {queued} writes are queued after a clear", tier.label);
                self.violation(Violation::Unaccounted { what });
            }
        }
    }

    /// Waits until nothing is under way any more.
    pub(super) async fn rest(&self) {
        let end = self.runtime.now().after(REST);
        loop {
            let restless = self.restless();
            for wrong in behind::unaccounted(&self.cache) {
                self.violation(wrong);
            }
            if restless.is_empty() {
                return;
            }
            if self.runtime.now() > end {
                return self.violation(Violation::Restless { what: restless.join("; ") });
            }
            self.runtime.sleep(Duration::from_millis(500)).await;
            // A breaker that is open closes only when somebody calls.
            for key in 0..self.scenario.keys {
                self.region(key).contains(&key).await;
            }
        }
    }

    fn restless(&self) -> Vec<String> {
        let inspection = self.cache.inspect();
        let mut restless = Vec::new();
        for tier in &inspection.tiers {
            let busy =
                tier.mailbox + tier.queued + tier.calls + tier.quarantined + tier.ledger + tier.blocking_jobs;
            let queued = tier.write_behind.as_ref().map_or(0, |queue| queue.queued + queue.letters_waiting);
            if busy + queued > 0 || tier.bypassed || tier.state != ActorState::Running {
                restless.push(format!(
                    "{}: {:?} behind={queued} mailbox={} queued={} calls={} quarantined={} ledger={} jobs={} bypassed={}",
                    tier.label,
                    tier.state,
                    tier.mailbox,
                    tier.queued,
                    tier.calls,
                    tier.quarantined,
                    tier.ledger,
                    tier.blocking_jobs,
                    tier.bypassed
                ));
            }
        }
        if inspection.refills_queued + inspection.loads > 0 {
            restless.push(format!("refills={} loads={}", inspection.refills_queued, inspection.loads));
        }
        restless
    }

    /// At rest, every tier that holds a key holds the same, and nothing that was replaced.
    pub(super) async fn converge(&self) {
        if self.scenario.lying {
            return;
        }
        for key in 0..self.scenario.keys {
            let mut held: Vec<(String, u64)> = Vec::new();
            let read = self.begin_read();
            for index in 0..self.scenario.tiers.len() {
                let label = format!("t{index}");
                let name = self.region(key).key(&key);
                if let Ok(Some(hit)) = self.cache.get_from::<Row>(&label, &name).await {
                    self.check(key, Some(&hit), read);
                    held.push((label, hit.id));
                }
            }
            if held.windows(2).any(|pair| pair[0].1 != pair[1].1) {
                self.violation(Violation::Disagree { what: format!("key {key}: {held:?}") });
            }
            let row = self.watch().database.get(&key).copied();
            if let Some(row) = row
                && held.iter().any(|(_, value)| *value != row)
            {
                self.violation(Violation::Disagree {
                    what: format!("key {key}: {held:?}, the database has {row}"),
                });
            }
        }
    }

    /// Ends the cache, and holds what its stores have against the history as the next process would find it; then ends
    /// that one in the midst of its work.
    pub(super) async fn outlive(&self, plans: &Plans, stores: &Stores) {
        for wrong in behind::end(&self.cache, Duration::from_secs(10), true).await {
            self.violation(wrong);
        }
        for (index, store) in lock(stores).iter() {
            for what in store.disordered().into_iter().filter(|_| !self.scenario.lying) {
                self.violation(Violation::Disagree {
                    what: format!("t{index} was written out of order: {what}"),
                });
            }
        }
        let mut scenario = self.scenario.clone();
        scenario.tiers.iter_mut().for_each(|tier| tier.rates.clear());
        let Ok(next) = open(&scenario, &self.runtime, plans, stores).await else {
            return self.violation(Violation::Restless { what: "the next cache did not build".to_owned() });
        };
        let (Ok(set_rows), Ok(_)) = (region(&next, &scenario, "set"), region(&next, &scenario, "db")) else {
            return self.violation(Violation::Restless { what: "a region did not open again".to_owned() });
        };
        for key in 0..scenario.sets {
            let read = self.begin_read();
            let hit = set_rows.get(&key).await;
            self.check(key, hit.as_ref(), read);
        }
        for (plan, rates) in lock(plans).iter().rev().zip(self.scenario.tiers.iter().rev().map(|t| &t.rates))
        {
            rates.iter().for_each(|&(fault, rate)| plan.rate(fault, rate));
        }
        let rows = (0..4 * scenario.sets).map(|n| (n % scenario.sets, Row { id: n, padding: Vec::new() }));
        for (key, row) in rows {
            let _ = set_rows.set(&key, row).await;
        }
        let within = Duration::from_millis(self.runtime.random() % 60);
        for wrong in behind::end(&next, within, false).await {
            self.violation(wrong);
        }
    }
}
