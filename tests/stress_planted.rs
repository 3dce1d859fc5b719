//! The stress test notices planted bugs: on real threads too, taking a rule out shows. Alone in its process, since the
//! bugs are planted on every thread.

#[path = "stress/tiers.rs"]
mod tiers;
#[path = "stress/work.rs"]
mod work;
#[path = "stress/world.rs"]
mod world;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Plant, plant_everywhere};
use tierkeep_tokio::TokioRuntime;

use world::Shape;

/// Runs of a few rounds that a planted bug may take to show. Those below show in the first ones.
const PATIENCE: usize = 20;

/// One for each family of rules; which of all are caught how soon is in `docs/order.md`.
const BUGS: [Plant; 5] = [
    Plant::NoFence,
    Plant::NoQuarantine,
    Plant::PortIgnoresQuarantine,
    Plant::LostOnRestart,
    Plant::ClearHidesNothing,
];

#[test]
fn planted_bugs_are_noticed_on_real_threads() {
    world::quiet();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for bug in BUGS {
        plant_everywhere(Some(bug));
        let caught = tokio.block_on(async {
            let runtime = RuntimeHandle::from(TokioRuntime::current());
            for (run, shape) in Shape::ALL.into_iter().cycle().take(PATIENCE).enumerate() {
                let report = world::run(&runtime, shape, 4).await;
                println!("{bug:?} {shape:?}: {report}");
                if let Some(violation) = report.violations.first() {
                    return Some(format!("in run {run}: {violation}"));
                }
            }
            None
        });
        plant_everywhere(None);
        println!("{bug:?}: {caught:?}");
        assert!(caught.is_some(), "{bug:?} was not noticed");
    }
}
