//! Where a node is: an address, or whoever the sentinels say is the master now.

use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
#[cfg(feature = "backplane")]
use redis::aio::PubSubStream;

use super::connect::Connector;
#[cfg(feature = "redis-sentinel")]
use super::sentinel::Sentinels;
use crate::error::Result;
use crate::runtime::RuntimeHandle;

pub(super) enum Target {
    Address(ConnectionInfo),
    #[cfg(feature = "redis-sentinel")]
    Sentinels(Sentinels),
}

impl Target {
    /// A connection that hears a channel.
    #[cfg(feature = "backplane")]
    pub(super) async fn listen(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
        channel: &str,
    ) -> Result<PubSubStream> {
        let info = match self {
            Self::Address(info) => info.clone(),
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinels(sentinels) => sentinels.master(connector, runtime).await?,
        };
        connector.listen(runtime, info, channel).await
    }

    pub(super) async fn connect(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
    ) -> Result<MultiplexedConnection> {
        match self {
            Self::Address(info) => connector.connect(runtime, info.clone()).await,
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinels(sentinels) => sentinels.connect(connector, runtime).await,
        }
    }
}
