//! The engine's conformance suite, on async-std.

use tierkeep::runtime::conformance::Case;
use tierkeep_async_std::AsyncStdRuntime;

fn run(case: Case) {
    async_std::task::block_on(case(AsyncStdRuntime::new().into()));
}

tierkeep::runtime_conformance!(run);
