//! A cached web service that tells what its cache does: `/metrics` for Prometheus, `/ready` for a readiness probe, and
//! `/traces` for the spans that OpenTelemetry was given.
//!
//! It checks itself: it starts on a free port of the loopback interface, sends itself requests, prints what was told,
//! and ends. `cargo run -p axum-telemetry`. In your service, keep `service` and `telemetry`, export the spans to your
//! collector instead of memory, and serve until a signal.

mod check;
mod service;
mod telemetry;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tierkeep::{Cache, MemoryBackend};
use tierkeep_sim::MapBackend;
use tierkeep_tokio::TokioRuntime;

use service::Service;

/// Any error: the example only reports it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Before the cache, which registers its metrics when it is built.
    let telemetry = telemetry::install()?;
    let cache = Cache::builder(TokioRuntime::current())
        .name("shop")
        .tier(MemoryBackend::entries(100))
        .tier(MapBackend::new().labelled("remote"))
        .build()
        .await?;
    let users = cache.region("user").ttl(Duration::from_secs(300)).build()?;
    let telemetry::Telemetry { metrics, traces } = telemetry;
    let service = Arc::new(Service { cache: cache.clone(), users, metrics, traces });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, service::routes(service)).with_graceful_shutdown(async {
        // An error means that the sender is gone: stop as well.
        let _ = stopped.await;
    });
    let checking = async {
        let checked = check::run(address).await;
        drop(stop);
        checked
    };
    let (served, checked) = tokio::join!(serving.into_future(), checking);
    served?;
    checked?;
    cache.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
