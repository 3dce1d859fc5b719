//! Auto-recovery: whatever the write policy is, and in whichever way a lower tier did not confirm a change, it is made good
//! in the background, and the key is read from there again.

use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::composition::WritePolicy;
use tierkeep::{BreakerOptions, Cache, MemoryBackend, Region, Tier, TierInspection};
use tierkeep_sim::{Fault, FaultPlan, Faulty, Op};

use super::store::Store;
use super::world::{NEVER, World};

const POLICIES: [WritePolicy; 5] = [
    WritePolicy::Sequential,
    WritePolicy::OptimisticParallel { require_all: false },
    WritePolicy::OptimisticParallel { require_all: true },
    WritePolicy::Race,
    WritePolicy::WriteAround,
];

/// It says no, having done nothing, all or half of it, dies of it, or never says anything.
const FAULTS: [Fault; 6] =
    [Fault::Error, Fault::AppliedButFails, Fault::Torn, Fault::Panic, Fault::Hang, Fault::LostReply];

/// What the key is set to one after the other; `None`: it is removed.
const CHANGES: [&[Option<u64>]; 4] = [&[Some(2)], &[None], &[Some(2), Some(3)], &[Some(2), None]];

fn region(cache: &Cache) -> Region<u64, u64> {
    cache.region("r").no_expiry().build().unwrap()
}

fn lower(cache: &Cache) -> TierInspection {
    cache.inspect().tier("lower").unwrap().clone()
}

async fn is_made_good(world: &World, policy: WritePolicy, fault: Fault, changes: &[Option<u64>]) {
    let name = format!("{policy:?}, {fault:?}, {changes:?}");
    let (store, plan) = (Store::new("lower"), FaultPlan::new(&world.runtime));
    let earlier = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
    region(&earlier).set(&1, 1).await.unwrap();
    let tier = Tier::new(Faulty::new(store.clone(), &world.runtime, &plan))
        .label("lower")
        .read_deadline(NEVER)
        .write_deadline(Duration::from_millis(20))
        .breaker(BreakerOptions::disabled());
    let cache = Cache::builder(world.runtime.clone())
        .tier(MemoryBackend::entries(10))
        .tier(tier)
        .write_policy(policy)
        .build()
        .await
        .unwrap();
    let numbers = region(&cache);
    for op in [Op::Write, Op::Remove] {
        plan.rate_on(op, fault, 1.0);
    }
    for change in changes {
        // Whether that is a success is the policy's business.
        match change {
            Some(value) => drop(numbers.set(&1, *value).await),
            None => drop(numbers.remove(&1).await),
        }
    }
    // A race does not wait for who loses it.
    world.until(&name, || plan.calls(Op::Write) + plan.calls(Op::Remove) > 0).await;
    world.until(&name, || lower(&cache).quarantined == 1).await;
    assert_ne!(numbers.get(&1).await.map(|hit| *hit), Some(1), "{name}: what it replaced");

    plan.heal();
    let whole = || lower(&cache).quarantined == 0 && lower(&cache).ledger == 0;
    world.until(&name, whole).await;
    assert!(lower(&cache).writes.repairs > 0 || policy == WritePolicy::Race, "{name}: by nobody's call");
    let last = changes.last().copied().flatten();
    let found = cache.get_from::<u64>("lower", &numbers.key(&1)).await.unwrap();
    assert_eq!(found.map(|hit| *hit), last, "{name}");
    // As another process would find it.
    let later = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
    assert_eq!(region(&later).get(&1).await.map(|hit| *hit), last, "{name}");
}

pub(crate) async fn what_a_lower_tier_did_not_confirm_is_made_good_under_every_write_policy(world: World) {
    for policy in POLICIES {
        let faults = FAULTS.into_iter().flat_map(|fault| CHANGES.map(|changes| (fault, changes)));
        // Nothing can be half removed.
        let cases = faults.filter(|(fault, changes)| *fault != Fault::Torn || !changes.contains(&None));
        join_all(cases.map(|(fault, changes)| is_made_good(&world, policy, fault, changes))).await;
    }
}
