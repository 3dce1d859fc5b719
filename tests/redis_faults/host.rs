//! The three runtimes, each driven from a plain thread, so that what breaks servers never blocks an executor.

use std::future::Future;
use std::sync::Arc;

use tierkeep::backend::RedisDriver;
use tierkeep::runtime::RuntimeHandle;
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_smol::SmolRuntime;
use tierkeep_tokio::TokioRuntime;

/// Threads that run tasks, where that can be chosen.
const THREADS: usize = 2;

/// A runtime, seen from a thread outside of it.
pub(crate) struct Host<'a> {
    pub(crate) runtime: RuntimeHandle,
    pub(crate) driver: RedisDriver,
    tokio: Option<&'a tokio::runtime::Runtime>,
}

impl Host<'_> {
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self.tokio {
            Some(tokio) => tokio.block_on(future),
            None => smol::block_on(future),
        }
    }
}

/// Runs `scenario` on all runtimes at once; each calls it in a thread of its own.
pub(crate) fn on_every_runtime(scenario: impl Fn(&Host<'_>) + Sync) {
    std::thread::scope(|threads| {
        let running = [
            threads.spawn(|| on_tokio(&scenario)),
            threads.spawn(|| on_smol(&scenario)),
            threads.spawn(|| on_async_std(&scenario)),
        ];
        for thread in running {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn on_tokio(scenario: &impl Fn(&Host<'_>)) {
    let tokio =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap();
    let runtime = tokio.block_on(async { TokioRuntime::current().into() });
    scenario(&Host { runtime, driver: RedisDriver::Tokio, tokio: Some(&tokio) });
}

fn on_smol(scenario: &impl Fn(&Host<'_>)) {
    let executor = Arc::new(smol::Executor::new());
    let runtime = RuntimeHandle::from(SmolRuntime::on(Arc::clone(&executor)));
    let (stop, stopped) = smol::channel::unbounded::<()>();
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| smol::block_on(executor.run(stopped.recv())));
        }
        // Closes the channel on every way out, so that the threads end.
        let _stop = stop;
        scenario(&Host { runtime, driver: RedisDriver::Smol, tokio: None });
    });
}

fn on_async_std(scenario: &impl Fn(&Host<'_>)) {
    scenario(&Host { runtime: AsyncStdRuntime::new().into(), driver: RedisDriver::Smol, tokio: None });
}
