//! One attempt to connect: the address, the credentials of the moment, the handshake.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
#[cfg(feature = "backplane")]
use redis::aio::PubSubStream;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo};

use super::credentials::{Credentials, CredentialsProvider};
use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;

/// How every connection of a backend is made.
pub(super) struct Connector {
    pub(super) credentials: Option<Arc<dyn CredentialsProvider>>,
    pub(super) timeout: Duration,
    /// How long the system keeps sending what is not acknowledged (`TCP_USER_TIMEOUT`, on Linux): a command that was
    /// given up is not to arrive once nothing in the store remembers what came after it.
    pub(super) unacknowledged: Duration,
}

impl Connector {
    /// Connects to `info`, within the timeout. To be called in a task of `runtime`: the redis crate takes its sockets
    /// from the runtime that it finds itself in.
    pub(super) async fn connect(
        &self,
        runtime: &RuntimeHandle,
        info: ConnectionInfo,
    ) -> Result<MultiplexedConnection> {
        self.connect_as(runtime, info, self.credentials.as_deref()).await
    }

    /// The same with other credentials than the backend's, or with those in `info`.
    pub(super) async fn connect_as(
        &self,
        runtime: &RuntimeHandle,
        info: ConnectionInfo,
        whose: Option<&dyn CredentialsProvider>,
    ) -> Result<MultiplexedConnection> {
        self.within(runtime, async { attempt(self.bound(info), ask(whose).await?).await }).await
    }

    /// Connects to `info` to listen to a channel, within the timeout. Where [`connect`](Self::connect) may be called.
    #[cfg(feature = "backplane")]
    pub(super) async fn listen(
        &self,
        runtime: &RuntimeHandle,
        info: ConnectionInfo,
        channel: &str,
    ) -> Result<PubSubStream> {
        let whose = self.credentials.as_deref();
        self.within(runtime, async { listen(info, ask(whose).await?, channel).await }).await
    }

    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    fn bound(&self, info: ConnectionInfo) -> ConnectionInfo {
        let settings = info.tcp_settings().clone();
        if settings.user_timeout().is_some_and(|chosen| chosen <= self.unacknowledged) {
            return info;
        }
        info.set_tcp_settings(settings.set_user_timeout(self.unacknowledged))
    }

    #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
    fn bound(&self, info: ConnectionInfo) -> ConnectionInfo {
        info
    }

    /// Gives an attempt the timeout and no longer.
    pub(super) async fn within<T>(
        &self,
        runtime: &RuntimeHandle,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let deadline = runtime.now().after(self.timeout);
        match runtime.deadline(deadline, attempt).await {
            Some(result) => result,
            None => Err(Error::new(
                ErrorKind::Unavailable,
                format!("no connection to Redis within {} ms", self.timeout.as_millis()),
            )),
        }
    }
}

async fn ask(provider: Option<&dyn CredentialsProvider>) -> Result<Option<Credentials>> {
    let Some(provider) = provider else { return Ok(None) };
    provider.credentials().await.map(Some).map_err(|message| {
        Error::new(ErrorKind::Unavailable, format!("the Redis credentials provider failed: {message}"))
    })
}

async fn attempt(info: ConnectionInfo, credentials: Option<Credentials>) -> Result<MultiplexedConnection> {
    let login = Login::new(info, credentials);
    // The engine's deadlines hold for calls, ours for the attempt: the crate needs no timers of its own.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connected = match Client::open(login.info.clone()) {
        Ok(client) => client.get_multiplexed_async_connection_with_config(&config).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| login.failed(&error))
}

#[cfg(feature = "backplane")]
async fn listen(
    info: ConnectionInfo,
    credentials: Option<Credentials>,
    channel: &str,
) -> Result<PubSubStream> {
    let login = Login::new(info, credentials);
    let listening = async {
        let mut connection = Client::open(login.info.clone())?.get_async_pubsub().await?;
        connection.subscribe(channel).await?;
        Ok(connection.into_on_message())
    };
    listening.await.map_err(|error| login.failed(&error))
}

/// Where to connect and as whom, and how to say that it failed without telling more.
struct Login {
    info: ConnectionInfo,
    secrets: [Option<String>; 2],
}

impl Login {
    fn new(info: ConnectionInfo, credentials: Option<Credentials>) -> Self {
        prepare_tls(&info);
        let mut settings = info.redis_settings().clone();
        if let Some(credentials) = &credentials {
            settings = settings.set_password(&credentials.password);
            if let Some(username) = &credentials.username {
                settings = settings.set_username(username);
            }
        }
        let secrets = [settings.password().map(str::to_owned), settings.username().map(str::to_owned)];
        Self { info: info.set_redis_settings(settings), secrets }
    }

    /// To be called before a text is cut: half a secret would not be found.
    fn without_secrets(&self, text: String) -> String {
        let mut secrets: Vec<_> = self.secrets.iter().flatten().filter(|secret| !secret.is_empty()).collect();
        // One may be part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text, |text, secret| text.replace(secret, "…"))
    }

    fn failed(&self, error: &redis::RedisError) -> Error {
        let text = failure::shorten(&self.without_secrets(error.to_string()));
        let address = self.info.addr();
        Error::new(ErrorKind::Unavailable, format!("cannot connect to Redis at {address}: {text}"))
    }
}

/// rustls wants a crypto provider to be chosen for the process; where nobody has, ring it is.
fn prepare_tls(info: &ConnectionInfo) {
    #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
    if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. })
        && rustls::crypto::CryptoProvider::get_default().is_none()
    {
        // Fails if somebody else has just chosen one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let _ = info;
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use super::*;

    #[test]
    fn a_secret_that_the_cut_would_divide_is_replaced_as_a_whole() {
        let info = "redis://user@localhost".into_connection_info().unwrap();
        let login = Login::new(info, Some(Credentials::user("hunter", "hunter2-and-more")));
        let said = format!("{}hunter2-and-more is wrong for hunter", "x".repeat(292));
        let text = failure::shorten(&login.without_secrets(said));
        assert!(text.starts_with("xxx") && !text.contains("hunter"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_not_acknowledged_is_given_up_and_a_shorter_choice_stays() {
        let connector =
            Connector { credentials: None, timeout: Duration::ZERO, unacknowledged: Duration::from_secs(20) };
        let info = "redis://localhost".into_connection_info().unwrap();
        let after = |info: ConnectionInfo| connector.bound(info).tcp_settings().user_timeout();
        assert_eq!(after(info.clone()), Some(Duration::from_secs(20)));
        for (chosen, kept) in [(5, 5), (100, 20)] {
            let settings = info.tcp_settings().clone().set_user_timeout(Duration::from_secs(chosen));
            assert_eq!(after(info.clone().set_tcp_settings(settings)), Some(Duration::from_secs(kept)));
        }
    }
}
