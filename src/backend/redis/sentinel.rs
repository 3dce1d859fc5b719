//! Sentinels: asked for the master at each connection, so that a failover is followed by the next one.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, Value};

use super::connect::Connector;
use super::credentials::CredentialsProvider;
use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;

pub(super) struct Sentinels {
    /// With their own users and passwords, where these are not asked for.
    pub(super) sentinels: Vec<ConnectionInfo>,
    pub(super) credentials: Option<Arc<dyn CredentialsProvider>>,
    pub(super) master: String,
    /// What the master is connected to with, but for its address.
    pub(super) template: ConnectionInfo,
}

impl Sentinels {
    pub(super) async fn connect(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
    ) -> Result<MultiplexedConnection> {
        let info = self.master(connector, runtime).await?;
        let mut connection = connector.connect(runtime, info).await?;
        // A sentinel may not have heard yet that its master is one no longer.
        let role = connection.send_packed_command(&redis::cmd("ROLE")).await;
        match role.map_err(|error| failure::connection(&error))? {
            Value::Array(role) if matches!(&role[..], [Value::BulkString(role), ..] if role == b"master") => {
                Ok(connection)
            }
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the sentinels' master `{}` is a replica: a failover is under way", self.master),
            )),
        }
    }

    /// Where the master is. All are asked at once, and the first that knows is believed: hosts that are gone cost nothing.
    pub(super) async fn master(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
    ) -> Result<ConnectionInfo> {
        let ask = |sentinel: &ConnectionInfo| self.ask(connector, runtime, sentinel.clone());
        let mut asked: FuturesUnordered<_> = self.sentinels.iter().map(ask).collect();
        let mut failed = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(master) => return Ok(master),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Config, "no sentinel is known")))
    }

    async fn ask(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
        sentinel: ConnectionInfo,
    ) -> Result<ConnectionInfo> {
        let mut connection = connector.connect_as(runtime, sentinel, self.credentials.as_deref()).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer = connection.send_packed_command(&ask).await;
        match answer.map_err(|error| failure::connection(&error))? {
            Value::Array(address) => match &address[..] {
                [Value::BulkString(host), Value::BulkString(port)] => self.at(host, port),
                _ => Err(failure::unexpected("SENTINEL")),
            },
            Value::Nil => {
                let message = format!("the sentinels know no master `{}`", self.master);
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(failure::unexpected("SENTINEL")),
        }
    }

    fn at(&self, host: &[u8], port: &[u8]) -> Result<ConnectionInfo> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let port = text(port).and_then(|port| port.parse().ok());
        let (Some(host), Some(port)) = (text(host), port) else {
            return Err(failure::unexpected("SENTINEL"));
        };
        let addr = match self.template.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Ok(self.template.clone().set_addr(addr))
    }
}
