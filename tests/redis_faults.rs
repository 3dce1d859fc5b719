//! A cache over Redis at work while Redis, or the way there, is broken: on every runtime each call is answered within its
//! deadline, no value is wrong, no secret is told, and once it is healed hits return without a restart.
//!
//! Each scenario prints a line of counts.
#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

#[cfg(all(feature = "cluster", feature = "sentinel"))]
#[path = "redis_faults/cluster.rs"]
mod cluster;
#[path = "redis_faults/contents.rs"]
mod contents;
#[path = "redis_faults/host.rs"]
mod host;
#[path = "redis_faults/load.rs"]
mod load;
#[cfg(feature = "tracing")]
#[path = "redis_faults/logs.rs"]
mod logs;
#[path = "redis_faults/network.rs"]
mod network;
#[path = "redis_faults/pulse.rs"]
mod pulse;
#[path = "redis_faults/scenario.rs"]
mod scenario;
#[path = "redis_faults/server.rs"]
mod server;
#[path = "redis_faults/tally.rs"]
mod tally;

use std::time::Duration;

use tierkeep::backend::{RedisBackend, RedisBuilder};
use tierkeep_test_servers::{RedisServer, RedisServerBuilder};

use host::Host;
use scenario::SECRET;

/// A server that asks for the password.
fn guarded() -> RedisServerBuilder {
    RedisServer::builder().requirepass(SECRET)
}

/// Where a guarded server is, with the password: `redis://:password@address`.
fn url(address: impl std::fmt::Display) -> String {
    format!("redis://:{SECRET}@{address}")
}

/// A backend that notices and retries soon, so that the tests are short.
fn redis(host: &Host<'_>) -> RedisBuilder {
    #[cfg(feature = "tracing")]
    logs::listen();
    RedisBackend::builder(host.driver)
        .namespace("faults")
        .connect_timeout(Duration::from_millis(500))
        .silence_timeout(Duration::from_millis(400))
        .max_backoff(Duration::from_millis(300))
}

fn backend(host: &Host<'_>, address: impl std::fmt::Display) -> RedisBackend {
    redis(host).url(&url(address)).build().unwrap()
}
