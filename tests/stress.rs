//! The value history of the simulator's exploration, on real threads: tasks that run at once on a few keys, a store
//! that fails, crashes, clears and loads; every hit is checked, and once the faults stop all tiers agree.
//!
//! `TIERKEEP_STRESS_ROUNDS` makes it longer (default 25); `TIERKEEP_PLANT` names a planted bug (see `tierkeep::Plant`),
//! to see it caught: `TIERKEEP_PLANT=NoLedger cargo test --release --test stress`.

#[path = "stress/tiers.rs"]
mod tiers;
#[path = "stress/work.rs"]
mod work;
#[path = "stress/world.rs"]
mod world;

use std::sync::Arc;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Plant, plant_everywhere};
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_smol::SmolRuntime;
use tierkeep_tokio::TokioRuntime;

use world::Shape;

/// How many threads run tasks, where that can be chosen: more than there are cores, so that they are interrupted.
const THREADS: usize = 4;

fn rounds() -> usize {
    std::env::var("TIERKEEP_STRESS_ROUNDS").map_or(25, |rounds| rounds.parse().expect("a number of rounds"))
}

async fn stress(runtime: RuntimeHandle) {
    world::quiet();
    if let Ok(name) = std::env::var("TIERKEEP_PLANT") {
        let bug = Plant::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        plant_everywhere(Some(bug.expect("a planted bug of this name")));
    }
    for shape in Shape::ALL {
        let report = world::run(&runtime, shape, rounds()).await;
        println!("{} {shape:?}: {report}", runtime.name());
        assert!(report.violations.is_empty(), "{} {shape:?}: {:#?}", runtime.name(), report.violations);
        // Else nothing was tried.
        assert!(report.hits > report.ops / 20, "few hits: {report}");
        assert!(report.faults > 0 && report.fills > 0, "no faults or no fills: {report}");
    }
}

#[test]
fn an_older_value_never_wins_on_tokio() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    tokio.unwrap().block_on(async { stress(TokioRuntime::current().into()).await });
}

#[test]
fn an_older_value_never_wins_on_async_std() {
    async_std::task::block_on(stress(AsyncStdRuntime::new().into()));
}

#[test]
fn an_older_value_never_wins_on_smol() {
    let executor = Arc::new(smol::Executor::new());
    let runtime = RuntimeHandle::from(SmolRuntime::on(Arc::clone(&executor)));
    let (stop, stopped) = smol::channel::unbounded::<()>();
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| smol::block_on(executor.run(stopped.recv())));
        }
        // Closes the channel on every way out, so that the threads end.
        let stop = stop;
        smol::block_on(stress(runtime));
        drop(stop);
    });
}
