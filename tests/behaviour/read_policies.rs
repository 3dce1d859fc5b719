//! Read and refill policies over three tiers, each with a hit, a miss, a failure or a delay in each position.

use std::time::Duration;

use tierkeep::backend::MemoryBackend;
use tierkeep::composition::{ReadPolicy, RefillPolicy};
use tierkeep::{Cache, CacheKey, Compose, ErrorKind, Raw, Region};
use tierkeep_sim::{Fault, FaultPlan, Faulty};

use super::store::{Store, patient};
use super::world::World;

const LABELS: [&str; 3] = ["a", "b", "c"];

/// What a tier does about the one key. A higher number was written later.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tier {
    Has(u64),
    Lacks,
    Fails,
    /// Has it, but answers only when the test lets it.
    Late(u64),
    /// Lacks it, but says so only when the test lets it.
    LateMiss,
}

/// A policy over three tiers, and what comes of it.
struct Row {
    policy: ReadPolicy,
    tiers: [Tier; 3],
    /// Which tier's value is given.
    from: Option<&'static str>,
    /// Whether the late tiers are waited for.
    waits: bool,
    /// Which tiers are written to afterwards, as long as refills are wanted.
    refilled: &'static [&'static str],
}

const fn row(
    policy: ReadPolicy,
    tiers: [Tier; 3],
    from: Option<&'static str>,
    waits: bool,
    refilled: &'static [&'static str],
) -> Row {
    Row { policy, tiers, from, waits, refilled }
}

#[rustfmt::skip]
const TABLE: &[Row] = {
    use ReadPolicy::{Parallel, Race, Sequential};
    use Tier::{Fails, Has, Lacks, Late, LateMiss};
    const WAITS: bool = true;
    const AT_ONCE: bool = false;
    &[
        // From the top down, until one has it.
        row(Sequential, [Has(1),   Has(2),   Has(3)],   Some("a"), AT_ONCE, &[]),
        row(Sequential, [Lacks,    Has(2),   Has(3)],   Some("b"), AT_ONCE, &["a"]),
        row(Sequential, [Lacks,    Lacks,    Has(3)],   Some("c"), AT_ONCE, &["a", "b"]),
        row(Sequential, [Lacks,    Lacks,    Lacks],    None,      AT_ONCE, &[]),
        row(Sequential, [Fails,    Has(2),   Has(3)],   Some("b"), AT_ONCE, &[]),
        row(Sequential, [Lacks,    Fails,    Has(3)],   Some("c"), AT_ONCE, &["a"]),
        row(Sequential, [Fails,    Lacks,    Has(3)],   Some("c"), AT_ONCE, &["b"]),
        row(Sequential, [Lacks,    Lacks,    Fails],    None,      AT_ONCE, &[]),
        row(Sequential, [Fails,    Fails,    Fails],    None,      AT_ONCE, &[]),
        row(Sequential, [Has(1),   Fails,    Fails],    Some("a"), AT_ONCE, &[]),
        row(Sequential, [Late(1),  Has(2),   Has(3)],   Some("a"), WAITS,   &[]),
        row(Sequential, [LateMiss, Has(2),   Has(3)],   Some("b"), WAITS,   &["a"]),
        row(Sequential, [Lacks,    Late(2),  Has(3)],   Some("b"), WAITS,   &["a"]),
        row(Sequential, [Lacks,    LateMiss, Has(3)],   Some("c"), WAITS,   &["a", "b"]),
        row(Sequential, [Lacks,    Lacks,    Late(3)],  Some("c"), WAITS,   &["a", "b"]),
        row(Sequential, [Lacks,    Lacks,    LateMiss], None,      WAITS,   &[]),
        row(Sequential, [Has(1),   Late(2),  Late(3)],  Some("a"), AT_ONCE, &[]),
        // All at once, the first hit wins; tiers that had not missed by then are not refilled.
        row(Race,       [Has(1),   Lacks,    Lacks],    Some("a"), AT_ONCE, &[]),
        row(Race,       [Late(1),  Has(2),   Late(3)],  Some("b"), AT_ONCE, &[]),
        row(Race,       [Late(1),  LateMiss, Has(3)],   Some("c"), AT_ONCE, &[]),
        row(Race,       [Has(1),   Late(2),  Late(3)],  Some("a"), AT_ONCE, &[]),
        row(Race,       [Lacks,    Fails,    Late(3)],  Some("c"), WAITS,   &["a"]),
        row(Race,       [Fails,    Late(2),  Fails],    Some("b"), WAITS,   &[]),
        row(Race,       [Lacks,    Lacks,    Late(3)],  Some("c"), WAITS,   &["a", "b"]),
        row(Race,       [Lacks,    Late(2),  Lacks],    Some("b"), WAITS,   &["a"]),
        row(Race,       [Lacks,    LateMiss, Lacks],    None,      WAITS,   &[]),
        row(Race,       [Fails,    Fails,    Fails],    None,      AT_ONCE, &[]),
        // All are awaited, the newest wins, and what is older above it is brought up to date.
        row(Parallel,   [Has(3),   Has(2),   Has(1)],   Some("a"), AT_ONCE, &[]),
        row(Parallel,   [Has(1),   Has(3),   Has(2)],   Some("b"), AT_ONCE, &["a"]),
        row(Parallel,   [Has(1),   Has(2),   Has(3)],   Some("c"), AT_ONCE, &["a", "b"]),
        row(Parallel,   [Has(1),   Lacks,    Has(3)],   Some("c"), AT_ONCE, &["a", "b"]),
        row(Parallel,   [Has(1),   Fails,    Has(3)],   Some("c"), AT_ONCE, &["a"]),
        row(Parallel,   [Fails,    Has(2),   Fails],    Some("b"), AT_ONCE, &[]),
        row(Parallel,   [Has(2),   Has(2),   Has(2)],   Some("a"), AT_ONCE, &[]),
        row(Parallel,   [Has(1),   Has(2),   Late(3)],  Some("c"), WAITS,   &["a", "b"]),
        row(Parallel,   [Has(3),   Late(2),  Late(1)],  Some("a"), WAITS,   &[]),
        row(Parallel,   [Late(2),  Lacks,    Lacks],    Some("a"), WAITS,   &[]),
        row(Parallel,   [Lacks,    Lacks,    LateMiss], None,      WAITS,   &[]),
        row(Parallel,   [Fails,    Fails,    Fails],    None,      AT_ONCE, &[]),
    ]
};

struct Bench {
    world: World,
    stores: [Store; 3],
    plans: [FaultPlan; 3],
    /// The frames of versions 1, 2 and 3.
    versions: [Raw; 3],
    key: CacheKey,
}

impl Bench {
    async fn new(world: &World) -> Self {
        let source = Store::new("source");
        let cache = Cache::builder(world.runtime.clone()).tier(source.tier()).build().await.unwrap();
        let region = region(&cache);
        let key = region.key(&1);
        let mut versions = Vec::new();
        for version in 1..=3 {
            region.set(&1, version).await.unwrap();
            versions.push(source.map().get(&key).unwrap());
        }
        Self {
            world: world.clone(),
            stores: LABELS.map(Store::new),
            plans: LABELS.map(|_| FaultPlan::new(&world.runtime)),
            versions: versions.try_into().unwrap(),
            key,
        }
    }

    async fn cache(&self, policy: ReadPolicy, refill: RefillPolicy) -> Cache {
        let mut builder =
            Cache::builder(self.world.runtime.clone()).read_policy(policy).refill_policy(refill);
        for (store, plan) in self.stores.iter().zip(&self.plans) {
            builder = builder.tier(patient(Faulty::new(store.clone(), &self.world.runtime, plan)));
        }
        builder.build().await.unwrap()
    }

    /// Brings the stores into the row's state.
    fn set_up(&self, tiers: [Tier; 3]) {
        for ((store, plan), tier) in self.stores.iter().zip(&self.plans).zip(tiers) {
            store.map().wipe();
            plan.heal();
            store.gate().open();
            match tier {
                Tier::Has(version) | Tier::Late(version) => {
                    let frame = &self.versions[usize::try_from(version).unwrap() - 1];
                    store.map().put(self.key.clone(), frame.clone());
                }
                Tier::Fails => plan.rate(Fault::Error, 1.0),
                Tier::Lacks | Tier::LateMiss => {}
            }
            if matches!(tier, Tier::Late(_) | Tier::LateMiss) {
                store.gate().close();
            }
        }
    }

    fn open(&self) {
        self.stores.iter().for_each(|store| store.gate().open());
    }

    /// Whether every late tier that is asked at all has been asked.
    fn held_up(&self, tiers: [Tier; 3], policy: ReadPolicy) -> bool {
        let late = |tier: &Tier| matches!(tier, Tier::Late(_) | Tier::LateMiss);
        let mut asked = self.stores.iter().zip(&tiers).filter(|(_, tier)| late(tier));
        match policy {
            ReadPolicy::Sequential => asked.any(|(store, _)| store.gate().waiting() > 0),
            _ => asked.all(|(store, _)| store.gate().waiting() > 0),
        }
    }

    async fn run(&self, row: &Row, name: &str) {
        let Row { policy, tiers, .. } = *row;
        let cache = self.cache(policy, RefillPolicy::Always).await;
        self.set_up(tiers);
        let region = region(&cache);
        let reader = region.clone();
        let read = self.world.runtime.spawn(async move { reader.try_get(&1).await });
        if row.waits {
            self.world.until(name, || self.held_up(tiers, policy)).await;
            self.world.settle().await;
            assert_eq!(hits(&cache), 0, "{name}: waits");
            self.open();
        }
        let lookup = read.await.unwrap().unwrap();
        self.open();

        let from = lookup.hit.as_ref().map(|hit| hit.tier().unwrap().as_str());
        assert_eq!(from, row.from, "{name}");
        let version = lookup.hit.as_ref().map(|hit| **hit);
        let expected = row.from.map(|label| match tiers[LABELS.iter().position(|&l| l == label).unwrap()] {
            Tier::Has(version) | Tier::Late(version) => version,
            tier => panic!("{tier:?} has nothing"),
        });
        assert_eq!(version, expected, "{name}");
        for error in &lookup.degraded {
            let index = LABELS.iter().position(|&label| label == error.tier().unwrap().as_str()).unwrap();
            assert_eq!((tiers[index], error.kind()), (Tier::Fails, ErrorKind::Backend), "{name}");
        }
        if row.waits || policy == ReadPolicy::Parallel {
            let asked = match (policy, row.from) {
                (ReadPolicy::Sequential, Some(from)) => LABELS.iter().position(|&l| l == from).unwrap(),
                _ => 3,
            };
            let failing = tiers[..asked].iter().filter(|&&tier| tier == Tier::Fails).count();
            assert_eq!(lookup.degraded.len(), failing, "{name}: each is named");
        }
        self.check_refills(&cache, row, name, version).await;
    }

    async fn check_refills(&self, cache: &Cache, row: &Row, name: &str, version: Option<u64>) {
        let fills = || -> u64 { cache.inspect().tiers.iter().map(|tier| tier.writes.fills).sum() };
        self.world.until(name, || fills() == row.refilled.len() as u64).await;
        if row.refilled.len() < 2 {
            self.world.settle().await;
        }
        for ((store, label), tier) in self.stores.iter().zip(LABELS).zip(row.tiers) {
            let holds = match tier {
                _ if row.refilled.contains(&label) => version,
                Tier::Has(version) | Tier::Late(version) => Some(version),
                _ => None,
            };
            self.plans.iter().for_each(FaultPlan::heal);
            let alone = Cache::builder(self.world.runtime.clone()).tier(store.tier()).build().await.unwrap();
            let found = region(&alone).get(&1).await.map(|hit| *hit);
            assert_eq!(found, holds, "{name}: tier {label} afterwards");
        }
    }
}

/// Reads that found something, over all tiers.
fn hits(cache: &Cache) -> u64 {
    let tiers = cache.inspect().tiers;
    // A tier that is waited for has not been counted; those beside it have.
    tiers.iter().map(|tier| tier.reads.total()).sum::<u64>() / 3
}

fn region(cache: &Cache) -> Region<u64, u64> {
    cache.region("r").no_expiry().build().unwrap()
}

pub(crate) async fn each_policy_with_each_state_of_three_tiers(world: World) {
    let bench = Bench::new(&world).await;
    for row in TABLE {
        let name = format!("{:?} over {:?}", row.policy, row.tiers);
        bench.run(row, &name).await;
    }
}

pub(crate) async fn refills_as_the_policy_says(world: World) {
    let bench = Bench::new(&world).await;
    let only_from_b =
        || RefillPolicy::when(|refill| refill.from.as_str() == "b" && refill.key.prefix() == "r");
    let tiers_below = [[Tier::Lacks, Tier::Has(1), Tier::Lacks], [Tier::Lacks, Tier::Lacks, Tier::Has(1)]];
    for (refill, expected) in
        [(RefillPolicy::Always, [1, 2]), (RefillPolicy::Never, [0, 0]), (only_from_b(), [1, 0])]
    {
        for (tiers, expected) in tiers_below.into_iter().zip(expected) {
            let name = format!("{refill:?} over {tiers:?}");
            let cache = bench.cache(ReadPolicy::Sequential, refill.clone()).await;
            bench.set_up(tiers);
            assert_eq!(*region(&cache).get(&1).await.unwrap(), 1);
            let fills = || -> u64 { cache.inspect().tiers.iter().map(|tier| tier.writes.fills).sum() };
            world.until(&name, || fills() == expected).await;
            world.settle().await;
            assert_eq!(fills(), expected, "{name}");
            let copies = bench.stores.iter().filter(|store| store.holds(&bench.key)).count();
            assert_eq!(copies as u64, 1 + expected, "{name}");
        }
    }
}

pub(crate) async fn a_predicate_that_panics_refills_nothing(world: World) {
    let bench = Bench::new(&world).await;
    let refill = RefillPolicy::when(|_| std::panic::panic_any("asked for by a test"));
    let cache = bench.cache(ReadPolicy::Sequential, refill).await;
    bench.set_up([Tier::Lacks, Tier::Lacks, Tier::Has(2)]);
    assert_eq!(*region(&cache).get(&1).await.unwrap(), 2);
    world.settle().await;
    assert!(!bench.stores[0].holds(&bench.key));
    assert!(cache.inspect().tiers.iter().all(|tier| tier.restarts == 0));
}

pub(crate) async fn equal_stamps_are_told_apart_by_expiry(world: World) {
    let stores = ["a", "b"].map(Store::new);
    let cache = Cache::builder(world.runtime.clone())
        .read_policy(ReadPolicy::Parallel)
        .tier(stores[0].tier().ttl_cap(Duration::from_secs(60)))
        .tier(stores[1].tier())
        .build()
        .await
        .unwrap();
    let limited: Region<u64, u64> = cache.region("limited").ttl(Duration::from_secs(600)).build().unwrap();
    limited.set(&1, 11).await.unwrap();
    assert_eq!(limited.get(&1).await.unwrap().tier().unwrap().as_str(), "b", "it lives longer there");
    let short: Region<u64, u64> = cache.region("short").ttl(Duration::from_secs(30)).build().unwrap();
    short.set(&1, 11).await.unwrap();
    assert_eq!(short.get(&1).await.unwrap().tier().unwrap().as_str(), "a", "the topmost of equals");
    let unlimited = region(&cache);
    unlimited.set(&1, 11).await.unwrap();
    let hit = unlimited.get(&1).await.unwrap();
    assert_eq!((hit.tier().unwrap().as_str(), hit.ttl()), ("b", None), "never is latest");
}

pub(crate) async fn nested_compositions_are_one_route(world: World) {
    let [b, c, d] = ["b", "c", "d"].map(Store::new);
    let a = patient(MemoryBackend::entries(10)).label("a");
    let upper = a.over(b.tier()).read(ReadPolicy::Parallel);
    let lower = c.tier().over(d.tier()).read(ReadPolicy::Race).refill(RefillPolicy::Never);
    let whole = upper.over(lower).read(ReadPolicy::Sequential);
    let cache = Cache::builder(world.runtime.clone()).tier(whole).build().await.unwrap();
    let labels: Vec<_> = cache.inspect().tiers.iter().map(|tier| tier.label.to_string()).collect();
    assert_eq!(labels, ["a", "b", "c", "d"]);
    // The outermost policies hold: read in turn, refill everything above.
    let lowest = Cache::builder(world.runtime.clone()).tier(d.tier()).build().await.unwrap();
    region(&lowest).set(&1, 11).await.unwrap();
    assert_eq!(region(&cache).get(&1).await.unwrap().tier().unwrap().as_str(), "d");
    let fills = || cache.inspect().tiers.iter().map(|tier| tier.writes.fills).collect::<Vec<_>>();
    world.until("all above are refilled", || fills() == [1, 1, 1, 0]).await;
    assert_eq!(region(&cache).get(&1).await.unwrap().tier().unwrap().as_str(), "a");
    assert!(b.holds(&region(&cache).key(&1)) && c.holds(&region(&cache).key(&1)));
    region(&cache).remove(&1).await.unwrap();
    assert!(!d.holds(&region(&cache).key(&1)));
}
