//! One test under many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sim::Sim;

/// Names the one seed to run instead of all, for [`explore`].
const ONLY: &str = "TIERKEEP_SEED";

/// Runs `test` in a fresh simulation for each seed. When one panics, its seed and the step it had reached are printed
/// to stderr and the panic goes on. With `TIERKEEP_SEED` in the environment, runs that seed alone.
///
/// ```
/// use std::time::Duration;
/// use tierkeep::runtime::{Runtime, RuntimeHandle};
///
/// tierkeep_sim::explore(0..100, |sim| {
///     let runtime = RuntimeHandle::new(sim.runtime());
///     let slept = sim.block_on(async {
///         runtime.sleep(Duration::from_secs(60)).await;
///         runtime.now()
///     });
///     assert!(slept.unwrap().as_nanos() >= 60_000_000_000);
/// });
/// ```
pub fn explore(seeds: impl IntoIterator<Item = u64>, test: impl Fn(&Sim)) {
    let only = std::env::var(ONLY).ok().and_then(|seed| seed.parse().ok());
    match only {
        Some(seed) => run(seed, &test),
        None => seeds.into_iter().for_each(|seed| run(seed, &test)),
    }
}

fn run(seed: u64, test: &impl Fn(&Sim)) {
    let sim = Sim::new(seed);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&sim))) {
        let last = sim.recent().pop();
        eprintln!("failed under seed {seed} (repeat with {ONLY}={seed}); last step: {last:?}");
        resume_unwind(panic);
    }
}
