//! The Redis tier on real servers, with both drivers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "redis/caches.rs"]
mod caches;
#[path = "redis/clears.rs"]
mod clears;
#[cfg(feature = "cluster")]
#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/connections.rs"]
mod connections;
#[path = "redis/dictionaries.rs"]
mod dictionaries;
#[path = "redis/eviction.rs"]
mod eviction;
#[path = "redis/lives.rs"]
mod lives;
#[path = "redis/order.rs"]
mod order;
#[path = "redis/plain.rs"]
mod plain;
#[path = "redis/reconnects.rs"]
mod reconnects;
#[path = "redis/secrets.rs"]
mod secrets;
#[path = "redis/support.rs"]
mod support;
