//! What a Redis tier can be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::RedisBackend;
use super::connect::Connector;
use super::credentials::{Credentials, CredentialsProvider, Fixed};
use super::driver::RedisDriver;
use super::keyspace::Keyspace;
use super::shared::Shared;
use super::store::{Store, StoreOptions};
use super::target::Target;
use crate::codec::{Compressor, Format, PassthroughCompressor, PostcardFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::key_format::CacheKeyFormat;
use crate::value::BackendLabel;

/// Builds a [`RedisBackend`].
pub struct RedisBuilder {
    driver: RedisDriver,
    address: Option<Result<ConnectionInfo>>,
    namespace: String,
    key_format: CacheKeyFormat,
    credentials: Option<Arc<dyn CredentialsProvider>>,
    database: Option<i64>,
    label: BackendLabel,
    format: Box<dyn Format>,
    compressor: Box<dyn Compressor>,
    connect_timeout: Duration,
    silence: Duration,
    max_backoff: Duration,
}

impl RedisBuilder {
    pub(super) fn new(driver: RedisDriver) -> Self {
        Self {
            driver,
            address: None,
            namespace: String::new(),
            key_format: CacheKeyFormat::UrlEncoded,
            credentials: None,
            database: None,
            label: BackendLabel::new_static("redis"),
            format: Box::new(PostcardFormat),
            compressor: Box::new(PassthroughCompressor),
            connect_timeout: Duration::from_secs(2),
            silence: Duration::from_secs(2),
            max_backoff: Duration::from_secs(5),
        }
    }

    /// Where the store is: `redis://[user[:password]@]host[:port][/database]`, `rediss://…` for TLS,
    /// `redis+unix:///path` for a Unix socket.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        // The crate's message may repeat the URL, and with it a password.
        let problem = "the Redis URL does not parse: write redis://host:port/database";
        self.address = Some(url.into_connection_info().map_err(|_| Error::new(ErrorKind::Config, problem)));
        self
    }

    /// Connects as an existing client of the application would: its address, TLS settings, user and database.
    #[must_use]
    pub fn client(mut self, client: &redis::Client) -> Self {
        self.address = Some(Ok(client.get_connection_info().clone()));
        self
    }

    /// What every key begins with, so that the cache meets no foreign key and no other cache. Mandatory. At most 256
    /// bytes; all but letters, digits and `-._~/` is percent-encoded.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How keys are written after the namespace. Default: [`CacheKeyFormat::UrlEncoded`], readable text.
    #[must_use]
    pub fn key_format(mut self, format: CacheKeyFormat) -> Self {
        self.key_format = format;
        self
    }

    /// Logs in as this user, whatever the URL says.
    #[must_use]
    pub fn credentials(self, credentials: Credentials) -> Self {
        self.credentials_from(Fixed(credentials))
    }

    /// Asks for the credentials at each connection, so that they may change while the cache runs.
    #[must_use]
    pub fn credentials_from(mut self, provider: impl CredentialsProvider) -> Self {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// The number of the database, whatever the URL says. Default: 0.
    #[must_use]
    pub fn database(mut self, number: u16) -> Self {
        self.database = Some(number.into());
        self
    }

    /// The tier's name; default `redis`.
    #[must_use]
    pub fn label(mut self, label: impl Into<BackendLabel>) -> Self {
        self.label = label.into();
        self
    }

    /// The format of new values; default postcard.
    #[must_use]
    pub fn value_format(mut self, format: impl Format) -> Self {
        self.format = Box::new(format);
        self
    }

    /// The compressor of new values; default none.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor) -> Self {
        self.compressor = Box::new(compressor);
        self
    }

    /// How long an attempt to connect may take, the name's resolution, TLS and the login included. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// For how long answers may be due without any coming before a connection is given up as half open. The tier's
    /// deadlines, which are shorter, answer the callers. Default: 2 s.
    #[must_use]
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.silence = timeout;
        self
    }

    /// The longest time between two attempts to connect. It begins at 100 ms and doubles, with jitter. Default: 5 s.
    #[must_use]
    pub fn max_backoff(mut self, longest: Duration) -> Self {
        self.max_backoff = longest;
        self
    }

    /// The backend. Connects to nothing: that happens when it is first asked.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no address or no namespace, or if one of the options cannot work.
    pub fn build(self) -> Result<RedisBackend> {
        let label = self.label.clone();
        self.assemble().map_err(|error| error.at_tier(&label))
    }

    fn assemble(self) -> Result<RedisBackend> {
        let keyspace = Keyspace::new(&self.namespace, self.key_format)?;
        let missing = || config("the Redis tier has no address: give it a `url` or a `client`");
        let mut info = self.address.ok_or_else(missing)??;
        if !info.addr().is_supported() {
            return Err(config(
                "the Redis address needs TLS or Unix sockets, which are not compiled in: turn on the feature \
                 `redis-tokio-tls` or `redis-smol-tls`",
            ));
        }
        if let Some(database) = self.database {
            let settings = info.redis_settings().clone().set_db(database);
            info = info.set_redis_settings(settings);
        }
        if self.connect_timeout.is_zero() || self.silence.is_zero() || self.max_backoff.is_zero() {
            return Err(config("`connect_timeout`, `silence_timeout` and `max_backoff` must not be zero"));
        }
        let connector = Connector { credentials: self.credentials, timeout: self.connect_timeout };
        let shared = Arc::new(Shared::new(connector, keyspace, self.silence, self.max_backoff));
        let options = StoreOptions {
            driver: self.driver,
            label: self.label,
            format: self.format,
            compressor: self.compressor,
        };
        Ok(RedisBackend(Arc::new(Store::new(shared, Target::Address(info), options))))
    }
}

fn config(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the URL nor the credentials.
        f.debug_struct("RedisBuilder")
            .field("driver", &self.driver)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}
