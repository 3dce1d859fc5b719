//! A production trace: get, and on a miss make the value and set it.

use std::sync::Arc;
use std::time::Duration;

use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::{hitbox, tierkeep as own};
use tierkeep_benches::trace;
use tierkeep_benches::values::{Account, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["replay_orm"],
    about: "first 1 M requests of orm-busy, L1 3,817 entries + L2 100,000, both in memory",
    run: replay,
}];

const REQUESTS: usize = 1_000_000;
const UPPER: u64 = 3_817;
const LOWER: u64 = 100_000;

/// Typed keys in, as an application asks. Each round begins with empty caches and ends when no refill is left.
fn replay(setting: &Setting) -> Outcome {
    let mut requests = trace::requests("orm-busy")?;
    requests.truncate(REQUESTS);
    assert_eq!(requests.len(), REQUESTS, "not the trace it is taken for");
    let runtime = micro::runtime();
    let template = Account::of(0);
    let made = move |id: u32| template.clone().renumbered(id.into());
    // Distinct keys all fit into the lower tier: each is made once, on both sides.
    let distinct = {
        let mut keys = requests.clone();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    };
    let requests: Arc<[u32]> = requests.into();
    let sides = Contest::new(setting, Unit::Nanos)
        .rounds(10)
        .fixed("tierkeep", || {
            let (requests, made) = (Arc::clone(&requests), made.clone());
            micro::on_worker(&runtime, async move {
                let cache = own::compose(
                    TokioRuntime::current(),
                    own::memory("l1", UPPER as usize),
                    own::memory("l2", LOWER as usize),
                )
                .await;
                let region = own::region::<Account>(&cache, "orm");
                let (mut loaded, watch) = (0, Watch::start());
                for &request in requests.iter() {
                    let id = u64::from(request);
                    match region.get(&id).await {
                        Some(hit) => assert_eq!(hit.id(), id),
                        None => {
                            loaded += 1;
                            region.set(&id, made(request)).await.expect("a set in memory");
                        }
                    }
                }
                while cache.inspect().refills_queued > 0 {
                    tokio::task::yield_now().await;
                }
                let took = watch.elapsed();
                assert_eq!(loaded, distinct, "the lower tier holds every key");
                own::shutdown(&cache).await;
                per_request(took)
            })
        })
        .fixed("hitbox", || {
            let (requests, made) = (Arc::clone(&requests), made.clone());
            micro::on_worker(&runtime, async move {
                let seed = hitbox::compose(hitbox::moka("l1", UPPER), hitbox::moka("l2", LOWER));
                let (mut loaded, watch) = (0, Watch::start());
                for &request in requests.iter() {
                    let id = u64::from(request);
                    let key = hitbox::key("orm", id);
                    match hitbox::get::<Account, _>(&seed, &key).await {
                        Some(value) => assert_eq!(value.id(), id),
                        None => {
                            loaded += 1;
                            hitbox::set(&seed, &key, made(request)).await;
                        }
                    }
                }
                let took = watch.elapsed();
                assert_eq!(loaded, distinct, "the lower tier holds every key");
                per_request(took)
            })
        })
        .run();
    Ok(vec![Comparison::new("replay_orm", Unit::Nanos, 8.0, &sides[0], &sides[1])])
}

#[expect(clippy::cast_precision_loss, reason = "a million")]
fn per_request(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / REQUESTS as f64
}
