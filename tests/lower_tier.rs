//! A value that only a lower tier has is found there, and refills the tiers above.

use std::time::Duration;

use tierkeep::runtime::Runtime;
use tierkeep::{Cache, MemoryBackend, Region};
use tierkeep_sim::{MapBackend, Sim};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_lower_tier_answers_and_refills_the_one_above() {
    let (sim, store) = (Sim::new(1), MapBackend::new());
    let open = async || {
        let tiers = Cache::builder(sim.runtime()).tier(MemoryBackend::entries(10)).tier(store.clone());
        let cache = tiers.build().await.unwrap();
        let names: Region<String, u32> = cache.region("name").ttl(MINUTE).build().unwrap();
        (cache, names)
    };
    let answers = sim.block_on(async {
        let (first, names) = open().await;
        names.set(&7, "Ada".to_owned()).await.unwrap();
        assert!(first.shutdown(MINUTE).await.clean);
        let (second, names) = open().await;
        let mut answers = Vec::new();
        for _ in 0..2 {
            let hit = names.get(&7).await.expect("the store still has it");
            answers.push((hit.to_string(), hit.tier().map(ToString::to_string)));
            // Lets the refill lane do its work.
            sim.sleep_until(sim.now().after(MINUTE / 2)).await;
        }
        assert_eq!(second.inspect().tier("map").map(|map| map.reads.degraded()), Some(0));
        answers
    });
    let ada = |tier: &str| ("Ada".to_owned(), Some(tier.to_owned()));
    assert_eq!(answers.unwrap(), [ada("map"), ada("memory")]);
}
