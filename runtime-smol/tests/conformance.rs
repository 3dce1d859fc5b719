//! The engine's conformance suite, on smol's global executor and on one of our own.

use std::sync::Arc;

use smol::Executor;
use tierkeep::runtime::conformance::Case;
use tierkeep_smol::SmolRuntime;

mod global {
    tierkeep::runtime_conformance!(super::on_global_executor);
}

mod own {
    tierkeep::runtime_conformance!(super::on_own_executor);
}

fn on_global_executor(case: Case) {
    smol::block_on(case(SmolRuntime::new().into()));
}

fn on_own_executor(case: Case) {
    let executor = Arc::new(Executor::new());
    let runtime = SmolRuntime::on(executor.clone());
    smol::block_on(executor.run(case(runtime.into())));
}
