//! A primary, its replica, and a sentinel that promotes the replica when the primary is gone.

use std::io;

use crate::await_until;
use crate::server::{RedisServer, RedisServerBuilder};

/// What the sentinel calls the primary.
const NAME: &str = "tierkeep";

/// Two servers and a sentinel (alone, so its own quorum); killed when dropped.
#[derive(Debug)]
pub struct RedisSentinel {
    sentinel: RedisServer,
    servers: [RedisServer; 2],
}

impl RedisSentinel {
    /// Starts them, and returns once the sentinel knows the replica.
    ///
    /// # Errors
    /// As of [`RedisServerBuilder::start`](crate::RedisServerBuilder::start), or if it does not know it in three minutes.
    pub fn start() -> io::Result<Self> {
        Self::start_with(RedisServer::builder(), RedisServer::builder())
    }

    /// The same, all with options: two servers and the sentinel. Either all of them have TLS, or none.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_with(server: RedisServerBuilder, sentinel: RedisServerBuilder) -> io::Result<Self> {
        let primary = server.clone().start()?;
        let replica = server.replica_of(&primary).start()?;
        await_until("a replica", || Ok((replica.info("master_link_status")? == "up").then_some(())))?;
        let (user, password) = RedisServer::harness();
        let sentinel = sentinel
            .sentinel()
            .config(format!("sentinel monitor {NAME} 127.0.0.1 {} 1", primary.port()))
            .config(format!("sentinel auth-user {NAME} {user}"))
            .config(format!("sentinel auth-pass {NAME} {password}"))
            .config(format!("sentinel down-after-milliseconds {NAME} 300"))
            .config(format!("sentinel failover-timeout {NAME} 2000"))
            .start()?;
        await_until("the sentinel's view", || {
            let replicas = sentinel.command(&["SENTINEL", "REPLICAS", NAME])?.text();
            Ok(replicas.contains(&replica.port().to_string()).then_some(()))
        })?;
        Ok(Self { sentinel, servers: [primary, replica] })
    }

    /// What the sentinel calls the primary.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The sentinel itself.
    pub fn sentinel(&self) -> &RedisServer {
        &self.sentinel
    }

    /// The two servers; the first one starts as the primary.
    pub fn servers(&self) -> &[RedisServer; 2] {
        &self.servers
    }

    /// Which of the two the sentinel takes for the primary.
    ///
    /// # Errors
    /// If the sentinel does not answer.
    pub fn primary(&self) -> io::Result<usize> {
        let address = self.sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?.text();
        let is_first = address.lines().nth(1) == Some(self.servers[0].port().to_string().as_str());
        Ok(usize::from(!is_first))
    }

    /// Kills the primary and waits until the other one has been promoted.
    ///
    /// # Errors
    /// If that takes more than three minutes.
    pub fn fail_over(&self) -> io::Result<()> {
        let old = self.primary()?;
        let other = &self.servers[1 - old];
        self.servers[old].kill()?;
        await_until("a failover", || {
            Ok((self.primary()? != old && other.info("role")? == "master").then_some(()))
        })
    }
}
