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

/// Runs a caller as a task on one of the runtime's workers, as a service's requests run. On the calling thread instead,
/// every answer of an actor would wake another thread, which costs many times the answer.
///
/// # Panics
/// If the task does: a wrong result aborts the bench.
pub fn on_worker<F>(runtime: &Runtime, caller: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime.block_on(async { runtime.spawn(caller).await.expect("a caller panicked") })
}
