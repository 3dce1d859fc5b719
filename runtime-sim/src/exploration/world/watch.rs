//! What the world keeps count of: the database, loads and mutations under way, and what came out.

use std::collections::HashMap;

use tierkeep::Timestamp;

use super::{Outcome, World};
use crate::history::Violation;

#[derive(Default)]
pub(super) struct Watch {
    /// The database: what each row holds.
    pub(super) database: HashMap<u64, u64>,
    /// By row and value: when it was loaded.
    loads: HashMap<(u64, u64), Loads>,
    next_value: u64,
    /// Mutations under way, and all there have been.
    pub(super) mutating: usize,
    pub(super) mutations: u64,
    pub(super) outcome: Outcome,
}

/// Loads of one value of a row.
#[derive(Default)]
struct Loads {
    pending: usize,
    /// From when on what they brought is expired, at the latest.
    dead_from: Option<Timestamp>,
}

impl Watch {
    pub(super) fn fresh(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// A loaded value is gone when the last load of it is older than its TTL.
    pub(super) fn check_life(&self, key: u64, value: u64, wall: Option<Timestamp>) -> Result<(), Violation> {
        let Some(loads) = self.loads.get(&(key, value)) else { return Ok(()) };
        match (loads.dead_from, wall) {
            (Some(dead_from), Some(wall)) if loads.pending == 0 && wall >= dead_from => {
                let (dead_from, wall) = (dead_from.as_millis(), wall.as_millis());
                let what =
                    format!("key {key}: loaded value {value} was dead from {dead_from}, read from {wall} on");
                Err(Violation::Expired { what })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn strike(&mut self, fault: &'static str, n: u64) {
        *self.outcome.faults.entry(fault).or_default() += n;
    }
}

/// A load of a value under way.
pub(super) struct Loading<'w> {
    world: &'w World,
    key: u64,
    value: u64,
}

impl<'w> Loading<'w> {
    pub(super) fn begin(world: &'w World, key: u64, value: u64) -> Self {
        world.watch().loads.entry((key, value)).or_default().pending += 1;
        Self { world, key, value }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let dead_from = self.world.scenario.ttl.map(|ttl| self.world.runtime.wall().after(ttl));
        let mut watch = self.world.watch();
        let loads = watch.loads.entry((self.key, self.value)).or_default();
        loads.pending -= 1;
        loads.dead_from = loads.dead_from.max(dead_from);
    }
}

/// A mutation under way.
pub(super) struct Mutating<'w>(&'w World);

impl<'w> Mutating<'w> {
    pub(super) fn begin(world: &'w World) -> Self {
        let mut watch = world.watch();
        watch.mutating += 1;
        watch.mutations += 1;
        Self(world)
    }
}

impl Drop for Mutating<'_> {
    fn drop(&mut self) {
        self.0.watch().mutating -= 1;
    }
}
