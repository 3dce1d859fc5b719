//! The sample of hot keys.

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend};

use crate::support::{exact, numbers, run};

#[test]
fn the_head_of_a_zipf_distribution_is_found() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache = Cache::builder(runtime.clone())
            .tier(MemoryBackend::entries(100_000))
            .hot_keys(true)
            .build()
            .await
            .unwrap();
        let region = numbers(&cache);
        let (keys, reads) = (50_000_u64, 600_000_u64);
        let weights: Vec<f64> = (1..=keys).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = weights.iter().sum();
        let mut cumulated = 0.0;
        let steps: Vec<f64> = weights
            .iter()
            .map(|weight| {
                cumulated += weight / total;
                cumulated
            })
            .collect();
        for key in 0..100 {
            // The head hits, the tail misses: both are reads.
            region.set(&key, key).await.unwrap();
        }
        for _ in 0..reads {
            let at = (runtime.random() >> 11) as f64 / (1_u64 << 53) as f64;
            region.get(&(steps.partition_point(|&step| step < at) as u64)).await;
        }
        let hot = cache.hot_keys(20);
        assert_eq!(hot.len(), 20);
        assert!(hot.is_sorted_by(|a, b| a.reads >= b.reads));
        for key in 0..5 {
            let found = hot.iter().find(|hot| hot.key == region.key(&key)).expect("a key of the head");
            let expected = reads as f64 * weights[usize::try_from(key).unwrap()] / total;
            let estimate = (found.reads - found.over) as f64;
            assert!((0.5..2.0).contains(&(estimate / expected)), "key {key}: {estimate} for {expected}");
        }
        assert_eq!(hot[0].key, region.key(&0));
    });
}

#[test]
fn nothing_is_sampled_unless_it_was_asked_for() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(10)).build().await.unwrap();
        let region = numbers(&cache);
        for _ in 0..1000 {
            region.get(&1).await;
        }
        assert!(cache.hot_keys(10).is_empty());
    });
}
