//! What a hop to an actor and back costs, on each host.

use criterion::{Criterion, criterion_group, criterion_main};
use tierkeep::runtime::RuntimeHandle;
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_benches::{echo, micro};
use tierkeep_tokio::TokioRuntime;

fn hop(criterion: &mut Criterion) {
    let tokio = micro::runtime();
    let hosts = [
        ("kameo_on_tokio", RuntimeHandle::new(TokioRuntime::new(tokio.handle().clone()))),
        ("flume_on_async_std", RuntimeHandle::new(AsyncStdRuntime::new())),
    ];
    let mut group = criterion.benchmark_group("hop");
    for (name, runtime) in hosts {
        let address = echo::spawn(&runtime);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|hops| {
                let send = echo::sender(&address);
                futures_executor::block_on(echo::hops(&runtime, hops, send))
            });
        });
        group.bench_function(format!("{name}/64_callers"), |bencher| {
            bencher.iter_custom(|hops| {
                let callers =
                    (0..64).map(|_| echo::hops(&runtime, hops.div_ceil(64), echo::sender(&address)));
                let longest = futures_executor::block_on(futures_util::future::join_all(callers));
                longest.into_iter().max().unwrap_or_default()
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = micro::criterion(); targets = hop }
criterion_main!(benches);
