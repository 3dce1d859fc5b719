//! Write policies over three tiers that confirm, fail or are late, in each position.

use tierkeep::composition::WritePolicy;
use tierkeep::{Cache, CacheKey, ErrorKind, Raw, Region};
use tierkeep_sim::{Fault, FaultPlan, Faulty};

use super::store::{Store, patient};
use super::world::World;

const LABELS: [&str; 3] = ["a", "b", "c"];

/// What a tier does about a write.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tier {
    Takes,
    Fails,
    /// Takes it, but only when the test lets it.
    Late,
}

/// What a tier shows once it is well and has been made good.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shows {
    New,
    Nothing,
}

struct Row {
    policy: WritePolicy,
    tiers: [Tier; 3],
    succeeds: bool,
    /// Whether the late tiers are waited for.
    waits: bool,
    afterwards: [Shows; 3],
}

const fn row(
    policy: WritePolicy,
    tiers: [Tier; 3],
    succeeds: bool,
    waits: bool,
    afterwards: [Shows; 3],
) -> Row {
    Row { policy, tiers, succeeds, waits, afterwards }
}

#[rustfmt::skip]
const TABLE: &[Row] = {
    use Shows::{New, Nothing};
    use Tier::{Fails, Late, Takes};
    use WritePolicy::{Race, Sequential, WriteAround};
    const ANY: WritePolicy = WritePolicy::OptimisticParallel { require_all: false };
    const ALL: WritePolicy = WritePolicy::OptimisticParallel { require_all: true };
    const OK: bool = true;
    const FAILED: bool = false;
    const WAITS: bool = true;
    const AT_ONCE: bool = false;
    &[
        // One confirmation is a success; a tier that failed is made good later.
        row(ANY,         [Takes, Takes, Takes], OK,     AT_ONCE, [New, New, New]),
        row(ANY,         [Fails, Takes, Takes], OK,     AT_ONCE, [New, New, New]),
        row(ANY,         [Takes, Fails, Takes], OK,     AT_ONCE, [New, New, New]),
        row(ANY,         [Takes, Takes, Fails], OK,     AT_ONCE, [New, New, New]),
        row(ANY,         [Fails, Takes, Fails], OK,     AT_ONCE, [New, New, New]),
        row(ANY,         [Fails, Fails, Fails], FAILED, AT_ONCE, [New, New, New]),
        row(ANY,         [Takes, Late,  Takes], OK,     WAITS,   [New, New, New]),
        row(ANY,         [Takes, Takes, Late],  OK,     WAITS,   [New, New, New]),
        row(ANY,         [Late,  Fails, Fails], OK,     WAITS,   [New, New, New]),
        // Every confirmation is needed.
        row(ALL,         [Takes, Takes, Takes], OK,     AT_ONCE, [New, New, New]),
        row(ALL,         [Fails, Takes, Takes], FAILED, AT_ONCE, [New, New, New]),
        row(ALL,         [Takes, Fails, Takes], FAILED, AT_ONCE, [New, New, New]),
        row(ALL,         [Takes, Takes, Fails], FAILED, AT_ONCE, [New, New, New]),
        row(ALL,         [Fails, Fails, Fails], FAILED, AT_ONCE, [New, New, New]),
        row(ALL,         [Late,  Takes, Takes], OK,     WAITS,   [New, New, New]),
        row(ALL,         [Takes, Late,  Takes], OK,     WAITS,   [New, New, New]),
        row(ALL,         [Takes, Takes, Late],  OK,     WAITS,   [New, New, New]),
        // In turn; below the first failure the key is dropped.
        row(Sequential,  [Takes, Takes, Takes], OK,     AT_ONCE, [New, New, New]),
        row(Sequential,  [Fails, Takes, Takes], FAILED, AT_ONCE, [New, Nothing, Nothing]),
        row(Sequential,  [Takes, Fails, Takes], FAILED, AT_ONCE, [New, New, Nothing]),
        row(Sequential,  [Takes, Takes, Fails], FAILED, AT_ONCE, [New, New, New]),
        row(Sequential,  [Fails, Fails, Takes], FAILED, AT_ONCE, [New, Nothing, Nothing]),
        row(Sequential,  [Fails, Fails, Fails], FAILED, AT_ONCE, [New, Nothing, Nothing]),
        row(Sequential,  [Late,  Takes, Takes], OK,     WAITS,   [New, New, New]),
        row(Sequential,  [Takes, Late,  Takes], OK,     WAITS,   [New, New, New]),
        row(Sequential,  [Takes, Takes, Late],  OK,     WAITS,   [New, New, New]),
        // The first confirmation ends it.
        row(Race,        [Takes, Takes, Takes], OK,     AT_ONCE, [New, New, New]),
        row(Race,        [Takes, Late,  Late],  OK,     AT_ONCE, [New, New, New]),
        row(Race,        [Late,  Takes, Late],  OK,     AT_ONCE, [New, New, New]),
        row(Race,        [Fails, Late,  Takes], OK,     AT_ONCE, [New, New, New]),
        row(Race,        [Takes, Fails, Late],  OK,     AT_ONCE, [New, New, New]),
        row(Race,        [Fails, Late,  Fails], OK,     WAITS,   [New, New, New]),
        row(Race,        [Fails, Fails, Late],  OK,     WAITS,   [New, New, New]),
        row(Race,        [Fails, Fails, Fails], FAILED, AT_ONCE, [New, New, New]),
        // Only the lowest keeps it; the others drop the key.
        row(WriteAround, [Takes, Takes, Takes], OK,     AT_ONCE, [Nothing, Nothing, New]),
        row(WriteAround, [Fails, Takes, Takes], OK,     AT_ONCE, [Nothing, Nothing, New]),
        row(WriteAround, [Takes, Fails, Takes], OK,     AT_ONCE, [Nothing, Nothing, New]),
        row(WriteAround, [Takes, Takes, Fails], FAILED, AT_ONCE, [Nothing, Nothing, New]),
        row(WriteAround, [Fails, Fails, Fails], FAILED, AT_ONCE, [Nothing, Nothing, New]),
        row(WriteAround, [Late,  Takes, Takes], OK,     WAITS,   [Nothing, Nothing, New]),
        row(WriteAround, [Takes, Late,  Takes], OK,     WAITS,   [Nothing, Nothing, New]),
        row(WriteAround, [Takes, Takes, Late],  OK,     WAITS,   [Nothing, Nothing, New]),
    ]
};

const OLD: u64 = 1;
const NEW: u64 = 2;

struct Bench {
    world: World,
    stores: [Store; 3],
    plans: [FaultPlan; 3],
    cache: Cache,
    region: Region<u64, u64>,
}

impl Bench {
    /// Three tiers that hold the old value.
    async fn new(world: &World, policy: WritePolicy) -> Self {
        let stores = LABELS.map(Store::new);
        let plans = LABELS.map(|_| FaultPlan::new(&world.runtime));
        let mut builder = Cache::builder(world.runtime.clone()).write_policy(policy);
        let earlier = earlier_frame(world).await;
        for (store, plan) in stores.iter().zip(&plans) {
            store.map().put(earlier.0.clone(), earlier.1.clone());
            builder = builder.tier(patient(Faulty::new(store.clone(), &world.runtime, plan)));
        }
        let cache = builder.build().await.unwrap();
        let region = region(&cache);
        Self { world: world.clone(), stores, plans, cache, region }
    }

    fn strike(&self, tiers: [Tier; 3]) {
        for ((store, plan), tier) in self.stores.iter().zip(&self.plans).zip(tiers) {
            match tier {
                Tier::Takes => {}
                Tier::Fails => plan.rate(Fault::Error, 1.0),
                Tier::Late => store.gate().close(),
            }
        }
    }

    fn heal(&self) {
        self.plans.iter().for_each(FaultPlan::heal);
        self.stores.iter().for_each(|store| store.gate().open());
    }

    /// Nothing is late and no key in quarantine any more.
    async fn made_good(&self, name: &str) {
        let whole =
            || self.cache.inspect().tiers.iter().all(|tier| tier.quarantined == 0 && tier.ledger == 0);
        self.world.until(name, whole).await;
    }

    /// What each tier shows, as if it were alone.
    async fn shown(&self) -> Vec<Option<u64>> {
        let mut shown = Vec::new();
        for store in &self.stores {
            let alone = Cache::builder(self.world.runtime.clone()).tier(store.tier()).build().await.unwrap();
            shown.push(region(&alone).get(&1).await.map(|hit| *hit));
        }
        shown
    }
}

async fn earlier_frame(world: &World) -> (CacheKey, Raw) {
    let source = Store::new("source");
    let cache = Cache::builder(world.runtime.clone()).tier(source.tier()).build().await.unwrap();
    let region = region(&cache);
    region.set(&1, OLD).await.unwrap();
    let key = region.key(&1);
    let frame = source.map().get(&key).unwrap();
    (key, frame)
}

fn region(cache: &Cache) -> Region<u64, u64> {
    cache.region("r").no_expiry().build().unwrap()
}

impl Row {
    async fn run(&self, world: &World) {
        let name = format!("{:?} over {:?}", self.policy, self.tiers);
        let bench = Bench::new(world, self.policy).await;
        bench.strike(self.tiers);
        let writer = bench.region.clone();
        let write = world.runtime.spawn(async move { writer.set(&1, NEW).await });
        if self.waits {
            let late = bench.stores.iter().zip(self.tiers).filter(|(_, tier)| *tier == Tier::Late);
            let late: Vec<_> = late.map(|(store, _)| store).collect();
            world.until(&name, || late.iter().all(|store| store.gate().waiting() > 0)).await;
            world.settle().await;
            assert!(late.iter().all(|store| store.gate().waiting() > 0), "{name}: waits");
            late.iter().for_each(|store| store.gate().open());
        }
        let result = write.await.unwrap();
        assert_eq!(result.is_ok(), self.succeeds, "{name}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Backend, "{name}");
            let told = LABELS.iter().position(|&label| label == error.tier().unwrap().as_str()).unwrap();
            let first = self.tiers.iter().position(|&tier| tier == Tier::Fails).unwrap();
            match self.policy {
                // Whichever failed first.
                WritePolicy::Race => assert_eq!(self.tiers[told], Tier::Fails, "{name}"),
                // Only the lowest tier's word counts.
                WritePolicy::WriteAround => assert_eq!(told, 2, "{name}"),
                _ => assert_eq!(told, first, "{name}: the topmost that failed"),
            }
        }

        // It has returned: the old value is read no more, whatever the tiers do. Those that are late are not asked.
        if !self.tiers.contains(&Tier::Late) || self.waits {
            assert_ne!(bench.region.get(&1).await.map(|hit| *hit), Some(OLD), "{name}");
        } else {
            let unconfirmed = bench.cache.inspect();
            let quarantined = unconfirmed.tiers.iter().zip(self.tiers).filter(|(t, _)| t.quarantined == 1);
            assert!(quarantined.map(|(_, tier)| tier).all(|tier| tier != Tier::Takes), "{name}");
        }
        bench.heal();
        assert_ne!(bench.region.get(&1).await.map(|hit| *hit), Some(OLD), "{name}");
        bench.made_good(&name).await;
        let expected: Vec<_> =
            self.afterwards.iter().map(|shows| (*shows == Shows::New).then_some(NEW)).collect();
        // A read above may have refilled what was dropped; never with the old value.
        for ((shown, expected), label) in bench.shown().await.into_iter().zip(expected).zip(LABELS) {
            let refilled = expected.is_none() && shown == Some(NEW);
            assert!(shown == expected || refilled, "{name}: tier {label} shows {shown:?}");
        }
    }
}

pub(crate) async fn each_policy_with_each_state_of_three_tiers(world: World) {
    for row in TABLE {
        row.run(&world).await;
    }
}

pub(crate) async fn a_removal_succeeds_by_the_word_that_counts_for_a_set(world: World) {
    use Tier::{Fails, Takes};
    const ALL: WritePolicy = WritePolicy::OptimisticParallel { require_all: true };
    let (any, race, in_turn, around) =
        (WritePolicy::default(), WritePolicy::Race, WritePolicy::Sequential, WritePolicy::WriteAround);
    for (tiers, succeeding) in [
        ([Takes, Takes, Takes], &[any, race, ALL, in_turn, around][..]),
        ([Fails, Takes, Takes], &[any, race, around]),
        ([Takes, Fails, Fails], &[any, race]),
        ([Fails, Fails, Fails], &[]),
    ] {
        for policy in [any, race, ALL, in_turn, around] {
            let name = format!("{policy:?} over {tiers:?}");
            let bench = Bench::new(&world, policy).await;
            bench.strike(tiers);
            let result = bench.region.remove(&1).await;
            assert_eq!(result.is_ok(), succeeding.contains(&policy), "{name}: {result:?}");
            assert!(bench.region.get(&1).await.is_none(), "{name}");
            bench.heal();
            assert!(bench.region.get(&1).await.is_none(), "{name}: nor once it is well");
            bench.made_good("removed everywhere").await;
            assert_eq!(bench.shown().await, [None, None, None], "{name}");
        }
    }
}
