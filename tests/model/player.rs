//! Plays a sequence on a cache in the simulator and on the map, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use proptest::test_runner::TestCaseError;
use tierkeep::backend::{Blocking, BlockingBackend};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, ErrorKind, MemoryBackend, Raw, Region, Tier,
};
use tierkeep_sim::{MapBackend, Sim};

use super::map::{LIVES, Map, Span};
use super::{Op, Place, Shape};

type Checked = Result<(), TestCaseError>;

struct Player {
    runtime: RuntimeHandle,
    cache: Cache,
    regions: Vec<Region<u64, u8>>,
    map: Map,
    memory: usize,
    next: u64,
}

pub(super) fn play(shape: &Shape, ops: &[Op]) -> Checked {
    let sim = Sim::new(shape.seed);
    let played = sim.block_on(async {
        let mut player = Player::new(shape, sim.runtime().into()).await;
        for (step, op) in ops.iter().enumerate() {
            let checked = player.step(op).await.and_then(|()| player.inspect());
            checked.map_err(|error| TestCaseError::fail(format!("step {step}, {op:?}: {error}")))?;
        }
        let report = player.cache.shutdown(Duration::from_secs(10)).await;
        ensure(report.clean, || format!("shutdown was not clean: {report:?}"))
    });
    played.map_err(|stall| TestCaseError::fail(stall.to_string()))?
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(TestCaseError::fail(what())) }
}

impl Player {
    async fn new(shape: &Shape, runtime: RuntimeHandle) -> Self {
        let mut top =
            Tier::new(MemoryBackend::entries(shape.memory)).sweep_interval(Duration::from_millis(40));
        if let Some(cap) = shape.cap {
            top = top.ttl_cap(Duration::from_millis(cap));
        }
        let mut builder =
            Cache::builder(runtime.clone()).read_policy(shape.read).write_policy(shape.write).tier(top);
        if shape.middle {
            builder = builder.tier(Tier::new(Blocking::new(Shelf::default())).label("shelf"));
        }
        let cache = builder.tier(MapBackend::new()).build().await.unwrap();
        let open = |(index, life): (usize, &Option<u64>)| {
            let region = cache.region(&format!("r{index}"));
            let region = match life {
                Some(life) => region.ttl(Duration::from_millis(*life)),
                None => region.no_expiry(),
            };
            region.build().unwrap()
        };
        let regions = LIVES.iter().enumerate().map(open).collect();
        Self { runtime, cache, regions, map: Map::default(), memory: shape.memory, next: 0 }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Runs a call and says when.
    async fn timed<T>(&self, call: impl Future<Output = T>) -> (T, Span) {
        let began = self.runtime.wall();
        let output = call.await;
        (output, Span { began, ended: self.runtime.wall() })
    }

    async fn step(&mut self, op: &Op) -> Checked {
        match op {
            Op::Set(place) => self.set(*place, None).await,
            Op::SetFor(place, life) => self.set(*place, Some(*life)).await,
            Op::SetMany(region, keys) => self.set_many(*region, keys).await,
            Op::Get(place) => {
                let (hit, span) = self.timed(self.regions[place.0].get(&place.1)).await;
                self.read(*place, hit.map(|hit| *hit), span)
            }
            Op::TryGet(place) => {
                let (lookup, span) = self.timed(self.regions[place.0].try_get(&place.1)).await;
                let lookup = lookup.map_err(|error| TestCaseError::fail(error.to_string()))?;
                ensure(lookup.degraded.is_empty(), || format!("degraded: {:?}", lookup.degraded))?;
                self.read(*place, lookup.hit.map(|hit| *hit), span)
            }
            Op::GetMany(region, keys) => {
                let (hits, span) = self.timed(self.regions[*region].get_many(keys)).await;
                ensure(hits.len() == keys.len(), || format!("{} answers", hits.len()))?;
                keys.iter()
                    .zip(hits)
                    .try_for_each(|(key, hit)| self.read((*region, *key), hit.map(|hit| *hit), span))
            }
            Op::Contains(place) => {
                let (contained, span) = self.timed(self.regions[place.0].contains(&place.1)).await;
                let expected = self.map.read(*place, span);
                // Which value does not matter.
                let value = match expected {
                    super::map::Expected::Live(value) | super::map::Expected::Either(value) => value,
                    super::map::Expected::Absent => 0,
                };
                ensure(expected.allows(contained.then_some(value)), || {
                    format!("contains={contained}, the model says {expected:?}")
                })
            }
            Op::Load(place) => self.load(*place, true).await,
            Op::LoadFails(place) => self.load(*place, false).await,
            Op::Remove(place) => {
                let (removed, span) = self.timed(self.regions[place.0].remove(&place.1)).await;
                let removed = removed.map_err(|error| TestCaseError::fail(error.to_string()))?;
                ensure(self.map.remove(*place, removed, span), || {
                    format!("remove said {removed}, the model disagrees")
                })
            }
            Op::Clear(region) => {
                // The lowest tier cannot clear: the engine says so, and hides everything all the same.
                let _ = self.regions[*region].clear().await;
                self.map.clear(Some(*region));
                Ok(())
            }
            Op::ClearAll => {
                let _ = self.cache.clear().await;
                self.map.clear(None);
                Ok(())
            }
            Op::Advance(millis) => {
                self.runtime.sleep(Duration::from_millis(*millis)).await;
                Ok(())
            }
        }
    }

    fn read(&self, place: Place, answer: Option<u64>, span: Span) -> Checked {
        let expected = self.map.read(place, span);
        ensure(expected.allows(answer), || format!("{place:?} gave {answer:?}, the model says {expected:?}"))
    }

    async fn set(&mut self, place: Place, life: Option<u64>) -> Checked {
        let (value, region) = (self.fresh(), self.regions[place.0].clone());
        let (set, span) = match life {
            Some(life) => self.timed(region.set_for(&place.1, value, Duration::from_millis(life))).await,
            None => self.timed(region.set(&place.1, value)).await,
        };
        self.map.set(place, value, life.or(LIVES[place.0]), span);
        set.map_err(|error| TestCaseError::fail(error.to_string()))
    }

    async fn set_many(&mut self, region: usize, keys: &[u8]) -> Checked {
        // Twice the same key at once has no order.
        let entries: Vec<_> =
            keys.iter().collect::<BTreeSet<_>>().into_iter().map(|key| (key, self.fresh())).collect();
        let (results, span) = self.timed(self.regions[region].set_many(entries.clone())).await;
        for (key, value) in &entries {
            self.map.set((region, **key), *value, LIVES[region], span);
        }
        let failed = results.iter().find(|result| result.is_err());
        ensure(results.len() == entries.len() && failed.is_none(), || format!("{results:?}"))
    }

    async fn load(&mut self, place: Place, succeeds: bool) -> Checked {
        let (value, region) = (self.fresh(), self.regions[place.0].clone());
        let asked = Mutex::new(false);
        let loader = || async {
            *asked.lock().unwrap() = true;
            if succeeds { Ok(value) } else { Err(std::io::Error::other("no such row")) }
        };
        let (loaded, span) = self.timed(region.get_or_load(&place.1, loader)).await;
        let asked = *asked.lock().unwrap();
        let expected = self.map.read(place, span);
        match loaded {
            Ok(hit) if asked => {
                ensure(*hit == value && expected.allows(None), || {
                    format!("loaded {} over {expected:?}", *hit)
                })?;
                self.map.set(place, value, LIVES[place.0], span);
                // The tiers below are filled in the background.
                self.runtime.sleep(Duration::from_millis(5)).await;
                Ok(())
            }
            Ok(hit) => self.read(place, Some(*hit), span),
            Err(error) => {
                ensure(asked && !succeeds && error.kind() == ErrorKind::Load && expected.allows(None), || {
                    format!("{error}, over {expected:?}")
                })
            }
        }
    }

    /// What holds between any two calls of a cache in which nothing fails.
    fn inspect(&self) -> Checked {
        let inspection = self.cache.inspect();
        ensure(inspection.loads == 0 && !inspection.closed, || "loads are under way".to_owned())?;
        for tier in &inspection.tiers {
            let sound =
                tier.quarantined == 0 && !tier.bypassed && tier.restarts == 0 && tier.breaker_opened == 0;
            ensure(sound && tier.reads.degraded() == 0, || format!("not sound: {tier:?}"))?;
            ensure(tier.writes.unconfirmed == 0, || format!("unconfirmed writes: {tier:?}"))?;
        }
        let held = inspection.tiers[0].usage.entries.unwrap_or_default();
        ensure(held <= self.memory as u64, || format!("{held} entries in memory for {}", self.memory))
    }
}

#[derive(Default)]
struct Shelf(Mutex<BTreeMap<CacheKey, CacheValue<Raw>>>);

impl BlockingBackend for Shelf {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.lock().unwrap().insert(key.clone(), value);
        Ok(())
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let removed = self.0.lock().unwrap().remove(key);
        Ok(if removed.is_some() { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing })
    }
}
