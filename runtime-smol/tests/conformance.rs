//! The engine's conformance suite, on smol.

use tierkeep::runtime::conformance::Case;
use tierkeep_smol::SmolRuntime;

fn run(case: Case) {
    smol::block_on(case(SmolRuntime::new().into()));
}

tierkeep::runtime_conformance!(run);
