//! Real servers for tests and benches, and a network between them that can fail.
//!
//! [`RedisServer`], [`RedisCluster`] and [`RedisSentinel`] start `redis-server` processes on free loopback ports, each in
//! a directory of its own; they can be stopped, killed, paused and started again. [`FaultProxy`] stands between a client
//! and a server and breaks what passes. Everything blocks and works on plain threads and sockets, so that it serves tests
//! on any runtime; a call takes milliseconds, a cluster some seconds to start.
//!
//! No process is left behind: servers end when they are dropped, and a watchdog ends them when the test's own process
//! dies, by `kill -9` too.
//!
//! ```
//! use tierkeep_test_servers::{FaultProxy, Network, RedisServer};
//!
//! let server = RedisServer::start()?;
//! let proxy = FaultProxy::to(server.addr())?;
//! println!("connect to {}", proxy.url());
//! proxy.set(Network::Blackhole);
//! proxy.set(Network::Healthy);
//! server.kill()?;
//! server.restart()?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![expect(clippy::disallowed_methods, reason = "servers and the network live outside of any runtime")]

mod certificates;
mod cluster;
mod ports;
mod process;
mod proxy;
mod resp;
mod sentinel;
mod server;

pub use certificates::Certificates;
pub use cluster::{Migration, RedisCluster};
pub use proxy::{Commands, FaultProxy, Network, ProxyCounts};
pub use resp::{Client, Reply};
pub use sentinel::RedisSentinel;
pub use server::{RedisServer, RedisServerBuilder};

/// Polls until `ready` gives something, for three minutes and a hundred times: a server tells by its answers when it is
/// ready, not by a time. A process that was stopped meanwhile has not waited. A sentinel whose machine stalls waits half a
/// minute by itself.
pub(crate) fn await_until<T>(
    what: &str,
    mut ready: impl FnMut() -> std::io::Result<Option<T>>,
) -> std::io::Result<T> {
    let began = std::time::Instant::now();
    let (mut last, mut polls) = (None, 0);
    while polls < 100 || began.elapsed() < std::time::Duration::from_secs(180) {
        polls += 1;
        match ready() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let last = last.map_or_else(String::new, |error| format!(": {error}"));
    Err(std::io::Error::other(format!("{what} took more than three minutes{last}")))
}
