//! What the Criterion benches of single paths share.

use std::time::Duration;

use criterion::Criterion;
use tokio::runtime::Runtime;

/// Short runs: a whole bench takes well under a minute.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

/// tokio with two workers, as in the benches beside peers.
///
/// # Panics
/// If the machine cannot start the workers.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}
