//! Where a node is: an address, or whoever the sentinels say is the master now.

use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
#[cfg(feature = "backplane")]
use redis::aio::PubSubStream;

use super::connect::Connector;
#[cfg(feature = "sentinel")]
use super::sentinel::Sentinels;
use crate::error::Result;
use crate::runtime::RuntimeHandle;

pub(super) enum Target {
    Address(ConnectionInfo),
    #[cfg(feature = "sentinel")]
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
        match self {
            Self::Address(info) => connector.listen(runtime, info.clone(), channel).await,
            #[cfg(feature = "sentinel")]
            Self::Sentinels(sentinels) => {
                let listening = async {
                    let master = sentinels.master(connector, runtime).await?;
                    connector.listen(runtime, master, channel).await
                };
                connector.within(runtime, listening).await
            }
        }
    }

    pub(super) async fn connect(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
    ) -> Result<MultiplexedConnection> {
        match self {
            Self::Address(info) => connector.connect(runtime, info.clone()).await,
            #[cfg(feature = "sentinel")]
            Self::Sentinels(sentinels) => {
                // As a whole: a master that takes the connection and then says nothing is one that is not there.
                connector.within(runtime, sentinels.connect(connector, runtime)).await
            }
        }
    }
}
