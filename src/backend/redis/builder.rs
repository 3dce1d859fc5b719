//! What a Redis tier can be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
use redis::{ClientTlsConfig, TlsCertificates};
use redis::{ConnectionInfo, IntoConnectionInfo};

use super::connect::Connector;
use super::credentials::{Credentials, CredentialsProvider, Fixed};
use super::driver::RedisDriver;
use super::keyspace::Keyspace;
#[cfg(feature = "sentinel")]
use super::sentinel::Sentinels;
use super::servers::Servers;
use super::shared::Shared;
use super::store::{Store, StoreOptions};
use super::target::Target;
use super::{RESIDUAL, RedisBackend};
use crate::codec::{Compressor, Format, PassthroughCompressor, PostcardFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::key_format::CacheKeyFormat;
use crate::value::BackendLabel;

/// Builds a [`RedisBackend`].
pub struct RedisBuilder {
    driver: RedisDriver,
    addresses: Vec<Result<ConnectionInfo>>,
    layout: Layout,
    replica: Option<Result<ConnectionInfo>>,
    namespace: String,
    key_format: CacheKeyFormat,
    credentials: Option<Arc<dyn CredentialsProvider>>,
    #[cfg(feature = "sentinel")]
    sentinel_credentials: Option<Arc<dyn CredentialsProvider>>,
    database: Option<i64>,
    label: BackendLabel,
    format: Box<dyn Format>,
    compressor: Box<dyn Compressor>,
    connect_timeout: Duration,
    silence: Duration,
    max_backoff: Duration,
    plain: bool,
    compare: bool,
    tombstones: Duration,
    eager: bool,
    #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
    tls: Option<TlsCertificates>,
}

/// What the addresses are.
enum Layout {
    One,
    #[cfg(feature = "cluster")]
    Cluster,
    /// Sentinels, and the name of their master.
    #[cfg(feature = "sentinel")]
    Sentinels(String),
}

impl RedisBuilder {
    pub(super) fn new(driver: RedisDriver) -> Self {
        Self {
            driver,
            addresses: Vec::new(),
            layout: Layout::One,
            replica: None,
            namespace: String::new(),
            key_format: CacheKeyFormat::UrlEncoded,
            credentials: None,
            #[cfg(feature = "sentinel")]
            sentinel_credentials: None,
            database: None,
            label: BackendLabel::new_static("redis"),
            format: Box::new(PostcardFormat),
            compressor: Box::new(PassthroughCompressor),
            connect_timeout: Duration::from_secs(2),
            silence: Duration::from_secs(2),
            max_backoff: Duration::from_secs(5),
            plain: false,
            compare: true,
            tombstones: Duration::from_secs(60),
            eager: false,
            #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
            tls: None,
        }
    }

    /// Where the store is: `redis://[user[:password]@]host[:port][/database]`, `rediss://…` for TLS,
    /// `redis+unix:///path` for a Unix socket.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        self.addresses = vec![parse(url)];
        self.layout = Layout::One;
        self
    }

    /// Connects as an existing client of the application would: its address, TLS settings, user and database.
    #[must_use]
    pub fn client(mut self, client: &redis::Client) -> Self {
        self.addresses = vec![Ok(client.get_connection_info().clone())];
        self.layout = Layout::One;
        self
    }

    /// The store is a cluster, some of whose nodes are at these URLs; the others are found through them. User, password
    /// and TLS are those of the first.
    #[cfg(feature = "cluster")]
    #[must_use]
    pub fn cluster<U: AsRef<str>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.addresses = urls.into_iter().map(|url| parse(url.as_ref())).collect();
        self.layout = Layout::Cluster;
        self
    }

    /// The store is the one that these sentinels call `master`. User and password in the URLs are the sentinels' own (or
    /// [`sentinel_credentials`](Self::sentinel_credentials)); the master's are given with
    /// [`credentials`](Self::credentials). With `rediss` URLs the master speaks TLS too, with the same certificates.
    #[cfg(feature = "sentinel")]
    #[must_use]
    pub fn sentinels<U: AsRef<str>>(mut self, urls: impl IntoIterator<Item = U>, master: &str) -> Self {
        self.addresses = urls.into_iter().map(|url| parse(url.as_ref())).collect();
        self.layout = Layout::Sentinels(master.to_owned());
        self
    }

    /// Reads from the replica at this URL while it answers, otherwise from where is written. It may lag: what is read is
    /// not refilled into the tiers above, and what is older than this process's own last change of a key is absent.
    /// Not for clusters.
    #[must_use]
    pub fn read_replica(mut self, url: &str) -> Self {
        self.replica = Some(parse(url));
        self
    }

    /// Trusts the certificates of this authority, in PEM, instead of the system's. For `rediss` URLs.
    #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
    #[must_use]
    pub fn tls_authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls().root_cert = Some(pem.into());
        self
    }

    /// Shows this certificate with its key, both in PEM, to a server that asks for one. For `rediss` URLs.
    #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
    #[must_use]
    pub fn tls_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls().client_tls =
            Some(ClientTlsConfig { client_cert: certificate.into(), client_key: key.into() });
        self
    }

    #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
    fn tls(&mut self) -> &mut TlsCertificates {
        self.tls.get_or_insert(TlsCertificates { client_tls: None, root_cert: None })
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

    /// Logs in to the sentinels as this user, whatever their URLs say. Default: as their URLs say; never as the master's.
    #[cfg(feature = "sentinel")]
    #[must_use]
    pub fn sentinel_credentials(self, credentials: Credentials) -> Self {
        self.sentinel_credentials_from(Fixed(credentials))
    }

    /// Asks for the sentinels' credentials whenever they are asked for the master, so that they may change.
    #[cfg(feature = "sentinel")]
    #[must_use]
    pub fn sentinel_credentials_from(mut self, provider: impl CredentialsProvider) -> Self {
        self.sentinel_credentials = Some(Arc::new(provider));
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

    /// Stores the bare value in the tier's format, without a frame, for programs in other languages to read and write.
    /// See [plain values](RedisBackend#plain-values) for what is lost. Default: no.
    #[must_use]
    pub fn plain_values(mut self, plain: bool) -> Self {
        self.plain = plain;
        self
    }

    /// Whether the store applies a write or a removal only if nothing newer stands there, by a script that compares
    /// stamps. Without it, a write of this process that is delayed on its way may undo a newer one of another. See
    /// [order](RedisBackend#order-across-processes) for what it costs. Default: yes, except for plain values.
    #[must_use]
    pub fn compare_stamps(mut self, compare: bool) -> Self {
        self.compare = compare;
        self
    }

    /// For how long the stamp of what was removed, or expired early, is remembered; at least twice the tier's
    /// [`residual`](crate::TierOptions::residual) time. About 100 bytes each. Default: 60 s.
    #[must_use]
    pub fn tombstone_life(mut self, life: Duration) -> Self {
        self.tombstones = life;
        self
    }

    /// Whether opening the tier waits for a connection, and fails without one: for a tier that is
    /// [`required`](crate::Tier::required). Default: no, the first call connects.
    #[must_use]
    pub fn connect_on_open(mut self, eager: bool) -> Self {
        self.eager = eager;
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

    fn assemble(mut self) -> Result<RedisBackend> {
        let keyspace = Keyspace::new(&self.namespace, self.key_format)?;
        self.check()?;
        let mut addresses = Vec::new();
        for address in std::mem::take(&mut self.addresses) {
            addresses.push(self.settle(address?)?);
        }
        let Some(first) = addresses.first().cloned() else {
            return Err(config("the Redis tier has no address: give it a `url` or a `client`"));
        };
        let replica = match self.replica.take() {
            Some(info) => Some(self.settle(info?)?),
            None => None,
        };
        let connector = Connector {
            credentials: self.credentials,
            timeout: self.connect_timeout,
            unacknowledged: RESIDUAL.min(self.tombstones) * 2 / 3,
        };
        let shared = Arc::new(Shared::new(connector, keyspace, self.silence, self.max_backoff));
        let replica = replica.map(|info| Servers::one(&shared, Target::Address(info)));
        let servers = match self.layout {
            #[cfg(feature = "cluster")]
            Layout::Cluster if replica.is_some() => {
                return Err(config("a Redis cluster has no one read replica: leave `read_replica` out"));
            }
            Layout::One => Servers::one(&shared, Target::Address(first)),
            #[cfg(feature = "cluster")]
            Layout::Cluster if first.redis_settings().db() != 0 => {
                return Err(config("a Redis cluster has no databases but 0"));
            }
            #[cfg(feature = "cluster")]
            Layout::Cluster => Servers::cluster(&shared, addresses),
            #[cfg(feature = "sentinel")]
            Layout::Sentinels(master) => {
                let settings = redis::RedisConnectionInfo::default().set_db(self.database.unwrap_or(0));
                let template = first.set_redis_settings(settings);
                // Sentinels have no databases.
                let plain = |info: ConnectionInfo| {
                    let settings = info.redis_settings().clone().set_db(0);
                    info.set_redis_settings(settings)
                };
                let sentinels = addresses.into_iter().map(plain).collect();
                let credentials = self.sentinel_credentials;
                let sentinels = Sentinels { sentinels, credentials, master, template };
                Servers::one(&shared, Target::Sentinels(sentinels))
            }
        };
        let options = StoreOptions {
            driver: self.driver,
            label: self.label,
            format: self.format,
            compressor: self.compressor,
            plain: self.plain,
            compare: self.compare && !self.plain,
            tombstones: self.tombstones,
            eager: self.eager,
        };
        Ok(RedisBackend(Arc::new(Store::new(shared, servers, replica, options))))
    }

    fn check(&self) -> Result<()> {
        let zero = [
            ("connect_timeout", self.connect_timeout),
            ("silence_timeout", self.silence),
            ("max_backoff", self.max_backoff),
            ("tombstone_life", self.tombstones),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, time)| time.as_millis() == 0) {
            return Err(Error::new(ErrorKind::Config, format!("`{name}` is under a millisecond")));
        }
        #[cfg(feature = "sentinel")]
        if self.sentinel_credentials.is_some() && !matches!(self.layout, Layout::Sentinels(_)) {
            return Err(config("credentials for sentinels, and no `sentinels`"));
        }
        if self.plain && self.compressor.id() != 0 {
            return Err(config("plain values are not compressed: give the tier no compressor"));
        }
        Ok(())
    }

    /// An address with what holds for all of them.
    fn settle(&self, mut info: ConnectionInfo) -> Result<ConnectionInfo> {
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
        #[cfg(any(feature = "redis-tokio-tls", feature = "redis-smol-tls"))]
        if let Some(tls) = &self.tls {
            let client = redis::Client::build_with_tls(info, tls.clone());
            let problem = "the TLS certificates do not parse, or the URL does not begin with `rediss`";
            return client.map(|client| client.get_connection_info().clone()).map_err(|_| config(problem));
        }
        Ok(info)
    }
}

fn parse(url: &str) -> Result<ConnectionInfo> {
    // The crate's message may repeat the URL, and with it a password.
    url.into_connection_info()
        .map_err(|_| config("the Redis URL does not parse: write redis://host:port/database"))
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
