//! Where a node is: an address, or whoever the sentinels say is the master now.

use redis::ConnectionInfo;

use super::connect::Connector;
use crate::error::Result;
use crate::runtime::RuntimeHandle;

pub(super) enum Target {
    Address(ConnectionInfo),
}

impl Target {
    /// The address to connect to now.
    pub(super) async fn resolve(
        &self,
        _connector: &Connector,
        _runtime: &RuntimeHandle,
    ) -> Result<ConnectionInfo> {
        match self {
            Self::Address(info) => Ok(info.clone()),
        }
    }
}
