//! The backplane over Redis's pub/sub: the tier's own connections publish, one more listens.
//!
//! A publication is a command like others, sent once the write that it tells of has been confirmed. The listener is a
//! connection to the server itself. Of a cluster either may use any master, since the cluster's bus carries every
//! publication to every node. Pub/sub keeps nothing for those who are away; the engine numbers its messages and notices.
//!
//! What has arrived and was not taken yet waits in memory, without a limit: the redis crate reads ahead. The engine takes
//! messages as they come, each costs it microseconds, and a process that stands still reads nothing ahead either.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use redis::Value;
use redis::aio::PubSubStream;

use super::servers::Keyed;
use super::store::Store;
use super::{RedisBackend, failure};
use crate::backend::BackendResult;
use crate::backplane::{Backplane, Subscription};
use crate::runtime::RuntimeHandle;
use crate::value::Raw;

/// A backplane on the connections of a [`RedisBackend`]. Clones are the same.
///
/// Its channel is `<namespace>:!backplane`. Pub/sub knows no databases: applications that share a server take different
/// namespaces, not only different databases. A user with an ACL needs `+publish +subscribe` and that channel.
#[derive(Clone)]
pub struct RedisBackplane(Arc<Store>);

impl RedisBackend {
    /// The backplane of all caches with this server and namespace, for
    /// [`CacheBuilder::backplane`](crate::CacheBuilder::backplane).
    pub fn backplane(&self) -> RedisBackplane {
        RedisBackplane(Arc::clone(&self.0))
    }
}

impl RedisBackplane {
    fn channel(&self) -> String {
        self.0.shared.keyspace.reserved("backplane")
    }
}

#[async_trait]
impl Backplane for RedisBackplane {
    async fn publish(&self, _: &RuntimeHandle, message: Raw) -> BackendResult<()> {
        let channel = self.channel();
        let mut command = redis::cmd("PUBLISH");
        command.arg(&channel).arg(&message[..]);
        let slot = self.0.servers.slot(channel.as_bytes());
        match self.0.servers.send_to_any(Keyed { slot, command }).await? {
            Value::Int(_) => Ok(()),
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(failure::unexpected("a publication")),
        }
    }

    async fn subscribe(&self, runtime: &RuntimeHandle) -> BackendResult<Box<dyn Subscription>> {
        let Store { shared, servers, .. } = &*self.0;
        let messages = servers.listen(&shared.connector, runtime, &self.channel()).await?;
        Ok(Box::new(Messages(messages)))
    }

    fn subscribe_limit(&self) -> Duration {
        // Each server that is tried may take its time; of a cluster, a good part may be gone.
        let (_, nodes) = self.0.servers.state();
        let tries = u32::try_from(nodes.clamp(2, 8)).unwrap_or(8);
        self.0.shared.connector.timeout.saturating_mul(tries)
    }

    fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
        self.0.options.driver.suits(runtime)
    }
}

struct Messages(PubSubStream);

#[async_trait]
impl Subscription for Messages {
    async fn next(&mut self) -> Option<Raw> {
        let message = self.0.next().await?;
        Some(Raw::copy_from_slice(message.get_payload_bytes()))
    }
}

impl std::fmt::Debug for RedisBackplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither addresses nor credentials.
        f.debug_tuple("RedisBackplane").field(&self.0.options.label).finish()
    }
}
