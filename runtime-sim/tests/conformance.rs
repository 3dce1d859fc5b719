//! The simulator is a runtime like the others: the whole suite, each case under 200 seeds.

use tierkeep::runtime::RuntimeHandle;
use tierkeep::runtime::conformance::Case;
use tierkeep_sim::explore;

const SEEDS: std::ops::Range<u64> = 0..200;

fn run(case: Case) {
    explore(SEEDS, |sim| {
        let runtime = RuntimeHandle::new(sim.runtime());
        if let Err(stall) = sim.block_on(case(runtime)) {
            panic!("{stall}");
        }
    });
}

mod conformance {
    tierkeep::runtime_conformance!(super::run);
}
