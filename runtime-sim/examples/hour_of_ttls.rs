//! Your application's cache in the simulator: an hour of TTLs, with an origin that fails for ten minutes of it, in
//! milliseconds of real time. Run it with `cargo run -p tierkeep-sim --example hour_of_ttls`.
//!
//! The code under test is [`Shop`]: what an application has. It knows nothing of the simulator, only a `RuntimeHandle`.
//! The test around it moves time, breaks the origin and the store, and asserts what customers see. Two runs of a seed
//! are the same run; another seed is another order of events.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::runtime::{Runtime, RuntimeHandle};
use tierkeep::{Cache, ErrorKind, MemoryBackend, Region, Tier};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend, Sim};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const MINUTE: Duration = seconds(60);

/// The seconds of the hour in which the origin is away: ten minutes.
const AWAY: std::ops::Range<u64> = 1320..1920;

// ---- the application

/// Where prices come from: slow, and sometimes away.
struct Origin {
    runtime: RuntimeHandle,
    away: Mutex<bool>,
    asked: AtomicU64,
}

#[derive(Debug)]
struct Away;

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin is away")
    }
}

impl std::error::Error for Away {}

impl Origin {
    async fn price(&self, item: u64) -> Result<u64, Away> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.runtime.sleep(Duration::from_millis(20)).await;
        if *self.away.lock().expect("no holder panics") { Err(Away) } else { Ok(100 + item) }
    }
}

/// Prices, kept for five minutes: in memory, and in a store that other machines could share.
struct Shop {
    cache: Cache,
    prices: Region<u64, u64>,
    origin: Arc<Origin>,
}

impl Shop {
    async fn open(
        runtime: RuntimeHandle,
        store: impl tierkeep::Backend,
        origin: Arc<Origin>,
    ) -> tierkeep::Result<Self> {
        let cache = Cache::builder(runtime)
            .tier(Tier::new(MemoryBackend::entries(1000)).ttl_cap(MINUTE))
            .tier(Tier::new(store).read_deadline(Duration::from_millis(50)))
            .build()
            .await?;
        let prices = cache.region("price").ttl(MINUTE * 5).build()?;
        Ok(Self { cache, prices, origin })
    }

    async fn price(&self, item: u64) -> tierkeep::Result<u64> {
        Ok(*self.prices.get_or_load(&item, || self.origin.price(item)).await?)
    }
}

// ---- the test

/// What a customer asking once a second saw in an hour.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Hour {
    answered: u64,
    refused: u64,
    /// How often the origin was asked.
    loads: u64,
    /// The first and the last second in which there was no price.
    dark: Option<(u64, u64)>,
}

fn hour(seed: u64) -> Hour {
    let sim = Sim::new(seed);
    let played = sim.block_on(live(RuntimeHandle::new(sim.runtime())));
    assert!(sim.now().as_nanos() >= 3_600_000_000_000, "an hour has passed");
    match played {
        Ok(Ok(hour)) => hour,
        Ok(Err(error)) => panic!("the shop did not open: {error}"),
        Err(stall) => panic!("{stall}"),
    }
}

async fn live(runtime: RuntimeHandle) -> tierkeep::Result<Hour> {
    let origin = Origin { runtime: runtime.clone(), away: Mutex::new(false), asked: AtomicU64::new(0) };
    let origin = Arc::new(origin);
    // One call in a hundred of the store fails or hangs.
    let faults = FaultPlan::new(&runtime);
    faults.rate(Fault::Error, 0.005);
    faults.rate(Fault::Hang, 0.005);
    let store = Faulty::new(MapBackend::new(), &runtime, &faults);
    let shop = Shop::open(runtime.clone(), store, Arc::clone(&origin)).await?;

    let mut hour = Hour::default();
    for second in 0..3600 {
        *origin.away.lock().expect("no holder panics") = AWAY.contains(&second);
        match shop.price(second % 10).await {
            Ok(price) => {
                assert_eq!(price, 100 + second % 10, "the price of another item");
                hour.answered += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Load, "only the origin's failure is seen: {error}");
                hour.refused += 1;
                let first = hour.dark.map_or(second, |(first, _)| first);
                hour.dark = Some((first, second));
            }
        }
        runtime.sleep(seconds(1)).await;
    }
    hour.loads = origin.asked.load(Ordering::Relaxed);
    shop.cache.shutdown(MINUTE).await;
    Ok(hour)
}

fn main() {
    for seed in 0..20 {
        let hour = hour(seed);
        println!("seed {seed}: {hour:?}");
        assert_eq!(hour.answered + hour.refused, 3600, "every customer got an answer");
        // Loaded two minutes before, most prices outlive the first three minutes without an origin.
        let (first, last) = hour.dark.expect("ten minutes are longer than the TTL");
        assert!(first >= AWAY.start && last <= AWAY.end, "dark from {first} to {last}");
        assert!((360..=480).contains(&hour.refused), "{} were refused", hour.refused);
        // Fifty minutes of ten items every five, and what a failing store costs.
        let needed = hour.loads - hour.refused;
        assert!((100..=150).contains(&needed), "{needed} loads were answered");
    }
    assert_eq!(hour(7), hour(7), "a seed is one run");
    println!("done");
}
