//! A tier fails and heals while the cache keeps answering.
//!
//! The "remote" tier is a map behind `tierkeep_sim::Faulty`, which makes any backend fail on command, here on tokio.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{BreakerOptions, BreakerState, Cache, MemoryBackend, Region, Tier};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend};
use tierkeep_tokio::TokioRuntime;

/// More than the memory tier holds.
const KEYS: u32 = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = RuntimeHandle::new(TokioRuntime::current());
    let plan = FaultPlan::new(&runtime);
    let remote = Faulty::new(MapBackend::new().labelled("remote"), &runtime, &plan);
    // Tries a broken tier again sooner than by default, and waits for it less long: this is a demonstration.
    let breaker = BreakerOptions { open: Duration::from_millis(200), ..BreakerOptions::default() };

    let cache = Cache::builder(runtime.clone())
        .tier(MemoryBackend::entries(50))
        .tier(Tier::new(remote).breaker(breaker).read_deadline(Duration::from_millis(10)))
        .build()
        .await?;
    let prices: Region<u32, u32> = cache.region("price").ttl(Duration::from_secs(60)).build()?;

    println!("== all is well");
    for _ in 0..2 {
        ask_all(&prices).await?;
    }
    tell(&cache);

    plan.late(Duration::from_millis(200)..=Duration::from_millis(400));
    // The panics are planned; their messages are not news.
    std::panic::set_hook(Box::new(|_| {}));
    for (fault, what) in
        [(Fault::Error, "fails"), (Fault::Panic, "panics"), (Fault::HangThenComplete, "answers too late")]
    {
        println!("== every call of the remote tier {what}");
        plan.rate(fault, 1.0);
        for _ in 0..3 {
            ask_all(&prices).await?;
        }
        prices.set(&0, 100).await?;
        // What a reader who asks is told; `get` and `get_or_load` just go on.
        if let Some(error) = prices.try_get(&1_000).await?.degraded.first() {
            println!("try_get names it: {error}");
        }
        tell(&cache);
        if fault == Fault::Error
            && let Some(remote) = cache.inspect().tier("remote")
        {
            println!("inspect() on the remote tier: {}", serde_json::to_string_pretty(remote)?);
        }

        println!("== the remote tier is well again");
        plan.heal();
        let (begun, before) = (runtime.now(), hits(&cache));
        while !recovered(&cache, before) {
            if runtime.now().since(begun) > Duration::from_secs(30) {
                return Err(format!("the remote tier did not recover: {:?}", cache.inspect()).into());
            }
            ask_all(&prices).await?;
            runtime.sleep(Duration::from_millis(20)).await;
        }
        tell(&cache);
    }

    let ended = cache.shutdown(Duration::from_secs(10)).await;
    println!("{}", if ended.clean { "done" } else { "not everything was flushed" });
    Ok(())
}

/// Asks for every price; each answer must come, and be right.
async fn ask_all(prices: &Region<u32, u32>) -> Result<(), Box<dyn Error>> {
    for id in 0..KEYS {
        let price = prices.get_or_load(&id, || async { Ok::<_, Infallible>(id + 100) }).await?;
        if *price != id + 100 {
            return Err(format!("the price of {id} is not {price}").into());
        }
    }
    Ok(())
}

fn hits(cache: &Cache) -> u64 {
    cache.inspect().tier("remote").map_or(0, |remote| remote.reads.hits)
}

/// Whether the tier serves again: nothing is held back, and it has answered since.
fn recovered(cache: &Cache, before: u64) -> bool {
    let inspection = cache.inspect();
    inspection.tier("remote").is_some_and(|remote| {
        remote.breaker == BreakerState::Closed && remote.quarantined == 0 && remote.reads.hits > before
    })
}

fn tell(cache: &Cache) {
    println!("every price was answered, and right");
    for tier in cache.inspect().tiers {
        println!(
            "{:<7} breaker {:?}, {} hits, {} misses, {} reads went on without it, {} keys in quarantine",
            tier.label.as_str(),
            tier.breaker,
            tier.reads.hits,
            tier.reads.misses,
            tier.reads.degraded(),
            tier.quarantined,
        );
    }
}
