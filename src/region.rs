//! Regions: the entries of one value type under one kind of key.

use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Scope;
use crate::cache::{Cache, Types};
use crate::codec::{Typed, Weigher};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::{Hit, Lookup};
use crate::key::{CacheKey, KeyParts, KeyProbe, KeyWriter};
use crate::store::Store;
use crate::value::DeleteStatus;

/// The entries of one value type `T`, under keys of type `K`. Cheap to clone.
///
/// A region is known to its cache by its name: opening it again gives the same entries; opening it with another type
/// is an error. Raise its [`version`](RegionBuilder::version) when the value's schema changes: old entries then read
/// as misses.
pub struct Region<T, K: ?Sized> {
    pub(crate) store: Store,
    cache: Cache,
    name: Arc<str>,
    /// `name:vN:`, what every key of the region begins with.
    prefix: Arc<str>,
    ttl: Option<Duration>,
    load_deadline: Duration,
    types: Types<T, K>,
}

/// Opens a [`Region`].
pub struct RegionBuilder<T, K: ?Sized> {
    cache: Cache,
    name: Arc<str>,
    version: u32,
    ttl: Option<Option<Duration>>,
    load_deadline: Duration,
    weigher: Option<Weigher<T>>,
    #[cfg(feature = "zstd")]
    dictionary: Option<crate::codec::DictionaryOptions>,
    types: Types<T, K>,
}

impl<T, K: ?Sized> RegionBuilder<T, K>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn new(cache: Cache, name: &str) -> Self {
        Self {
            cache,
            name: name.into(),
            version: 1,
            ttl: None,
            load_deadline: Duration::from_secs(30),
            weigher: None,
            #[cfg(feature = "zstd")]
            dictionary: None,
            types: PhantomData,
        }
    }

    /// The version of the value's schema; entries of other versions are not seen. Default: 1.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How long entries live, exact to the ms. There is no default: set this or [`no_expiry`](Self::no_expiry).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(Some(ttl));
        self
    }

    /// Entries live until they are removed or evicted.
    #[must_use]
    pub fn no_expiry(mut self) -> Self {
        self.ttl = Some(None);
        self
    }

    /// How long a load may take, waiting for another caller's load of the key included. What the tiers need before
    /// and after it is bounded by their own deadlines. Default: 30 s.
    #[must_use]
    pub fn load_deadline(mut self, deadline: Duration) -> Self {
        self.load_deadline = deadline;
        self
    }

    /// Says how many bytes a value takes in memory, for tiers bounded by bytes. Default: its size in postcard plus
    /// that of the struct.
    #[must_use]
    pub fn weigher(mut self, weigher: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.weigher = Some(Arc::new(weigher));
        self
    }

    /// Compresses the region's values with a dictionary of their own, trained from what is written (feature `zstd`): for
    /// many small values that resemble each other, in tiers whose compressor is plain
    /// [`ZstdCompressor`](crate::codec::ZstdCompressor). Default: no dictionary.
    ///
    /// Values are sampled as they are written; once there are enough, a dictionary is trained on the blocking pool, and
    /// used if it saves at least 5 % of bytes it has not seen. When values no longer compress as they did, another one is
    /// trained. Each dictionary is stored in the byte tiers before the first entry that is written with it, under a key
    /// of the engine's own, so that entries are readable after a restart and in other processes: a cache that meets a
    /// dictionary it does not know loads it from the entry's tier. An entry whose dictionary is gone is a counted miss.
    /// While it is in use it is stored again, with the first value after ten minutes and after 10,000 values; it expires
    /// after the longest life of the region's entries, and not before 30 days nor later than a year.
    ///
    /// A region takes over the first dictionary that is found in a tier, and compresses with it at once; when it has
    /// samples of its own, it keeps it unless a new one is better by 5 %.
    ///
    /// Opening the region again keeps the dictionary and the options of the first opening.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tierkeep::{Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, Raw, Region, async_trait};
    /// # use tierkeep_sim::MapBackend;
    /// use tierkeep::codec::{Compressor, DictionaryOptions, ZstdCompressor};
    /// # struct Store(MapBackend, ZstdCompressor);
    /// # #[async_trait]
    /// # impl Backend for Store {
    /// #     async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> { self.0.read(key).await }
    /// #     async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> { self.0.write(key, value).await }
    /// #     async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> { self.0.remove(key).await }
    /// #     fn compressor(&self) -> &dyn Compressor { &self.1 }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = tierkeep_tokio::TokioRuntime::current();
    /// # let store = Store(MapBackend::new(), ZstdCompressor::default());
    /// let cache = Cache::builder(runtime).tier(store).build().await?;
    /// let options = DictionaryOptions::default().size(4 << 10).samples(64 << 10);
    /// let users: Region<String, u32> = cache.region("users").no_expiry().dictionary(options).build()?;
    /// let user = |n: u32| format!(r#"{{"id":{n},"city":"Reykjavik","roles":["reader","writer"],"active":true}}"#);
    /// for n in 0..2_000 {
    ///     users.set(&n, user(n)).await?;
    /// }
    /// # while users.dictionary().is_some_and(|d| d.current().is_none()) { users.set(&0, user(0)).await?; tokio::task::yield_now().await }
    /// // Once it is trained:
    /// let before = cache.inspect().codec.bytes_out;
    /// users.set(&7_777, user(7_777)).await?;
    /// assert!(cache.inspect().codec.bytes_out - before < user(7_777).len() as u64 / 2);
    ///
    /// // To keep it elsewhere, or to begin with it: `DictionaryOptions::start_with`.
    /// let dictionary = users.dictionary().and_then(|dictionary| dictionary.current()).ok_or("not trained")?;
    /// assert!(dictionary.as_bytes().len() <= 4 << 10);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn dictionary(mut self, options: crate::codec::DictionaryOptions) -> Self {
        self.dictionary = Some(options);
        self
    }

    /// Opens the region.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty name, no statement about expiry, a zero TTL or a zero deadline;
    /// [`ErrorKind::TypeMismatch`] if the region is open with other types.
    pub fn build(self) -> Result<Region<T, K>> {
        let config =
            |message: &str| Err(Error::new(ErrorKind::Config, format!("region `{}`: {message}", self.name)));
        if self.name.is_empty() {
            return config("the name is empty");
        }
        let Some(ttl) = self.ttl else {
            return config("say how long entries live: `.ttl(…)` or `.no_expiry()`");
        };
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return config("the TTL is zero; entries would be dead when they are written");
        }
        if self.load_deadline.is_zero() {
            return config("the load deadline is zero");
        }
        #[cfg(feature = "zstd")]
        if let Some(options) = &self.dictionary {
            options.validate()?;
        }
        #[cfg(feature = "zstd")]
        if *self.name == *crate::composition::DICTIONARIES {
            return config("the name is the engine's own");
        }
        let shared = self.cache.register::<T, K>(&self.name)?;
        let mut prefix = String::new();
        KeyWriter::begin(&mut prefix, &self.name, self.version);
        let ty = Typed::new(self.weigher);
        #[cfg(feature = "zstd")]
        let ty = {
            let dictionaries = self.cache.engine().codecs.dictionaries();
            let of_region = |options| dictionaries.of_region(prefix.trim_end_matches(':'), options);
            ty.with_dictionary(self.dictionary.map(of_region))
        };
        Ok(Region {
            store: Store { engine: Arc::clone(self.cache.engine()), ty: Arc::new(ty), shared },
            cache: self.cache,
            name: self.name,
            prefix: prefix.into(),
            ttl,
            load_deadline: self.load_deadline,
            types: PhantomData,
        })
    }
}

impl<T, K: ?Sized> Region<T, K>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The value under `key`, or `None`. Cannot fail: a broken tier is a miss.
    ///
    /// Cancel-safe. A hit in a topmost memory tier completes at once, without an allocation, a message or a copy.
    pub async fn get<Q>(&self, key: &Q) -> Option<Hit<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        match self.at_once(key) {
            Ok(hit) => Some(hit),
            Err(key) => self.store.get_below(&key).await,
        }
    }

    /// As [`get`](Self::get), naming the tiers that could not answer. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown, and the failure of a tier whose
    /// [`ErrorPolicy`](crate::ErrorPolicy) is `Fail`.
    pub async fn try_get<Q>(&self, key: &Q) -> Result<Lookup<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        let key = self.key(key);
        self.store.engine.note_read(&key.probe());
        self.store.try_get(&key).await
    }

    /// The values under `keys`, in their order. Lower tiers are asked in batches. Cancel-safe.
    pub async fn get_many<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>) -> Vec<Option<Hit<T>>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized + 'a,
    {
        // Many are sent before any is awaited, so the tiers' actors see them together; not all, since their mailboxes
        // are bounded.
        let keys: Vec<_> = keys.into_iter().map(|key| self.key(key)).collect();
        let window = self.store.engine.window();
        let reads: Vec<_> = keys.iter().map(|key| self.store.get(key)).collect();
        stream::iter(reads).buffered(window).collect().await
    }

    /// Stores a value for the region's TTL, in the tiers and with the confirmation that the write policy asks for.
    ///
    /// When it returns, in success or failure, no read gives an older value. Dropped before it completes, the value
    /// may or may not be stored; tiers that have not confirmed it read as misses until they are made good.
    ///
    /// # Errors
    /// What the confirming tier reports ([`Timeout`](ErrorKind::Timeout), [`Unavailable`](ErrorKind::Unavailable),
    /// [`Overloaded`](ErrorKind::Overloaded), [`Backend`](ErrorKind::Backend), …); [`Encode`](ErrorKind::Encode) if the
    /// value cannot be encoded or would not read back; [`TooLarge`](ErrorKind::TooLarge);
    /// [`Closed`](ErrorKind::Closed) after shutdown. Errors before the value is numbered change nothing.
    pub async fn set<Q>(&self, key: &Q, value: impl Into<Arc<T>>) -> Result<()>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.set(&self.key(key), value.into(), self.ttl).await
    }

    /// As [`set`](Self::set), for another TTL than the region's.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`ErrorKind::Config`] if `ttl` is zero.
    pub async fn set_for<Q>(&self, key: &Q, value: impl Into<Arc<T>>, ttl: Duration) -> Result<()>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.set(&self.key(key), value.into(), Some(ttl)).await
    }

    /// Stores several values; the results are in their order. Each stands for itself: some may fail.
    pub async fn set_many<'a, Q>(&self, entries: impl IntoIterator<Item = (&'a Q, T)>) -> Vec<Result<()>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized + 'a,
    {
        let entries: Vec<_> =
            entries.into_iter().map(|(key, value)| (self.key(key), Arc::new(value))).collect();
        let window = self.store.engine.window();
        let writes: Vec<_> =
            entries.iter().map(|(key, value)| self.store.set(key, Arc::clone(value), self.ttl)).collect();
        stream::iter(writes).buffered(window).collect().await
    }

    /// Removes the value under `key` from every tier; returns whether some tier had it.
    ///
    /// When it returns, in success or failure, no read gives the removed value.
    ///
    /// # Errors
    /// The first tier's failure if no tier confirmed, or as the [policy](crate::composition::WritePolicy) says: with
    /// `require_all`, if not every one did. [`Closed`](ErrorKind::Closed) after shutdown.
    pub async fn remove<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.remove(&self.key(key)).await.map(|status| status != DeleteStatus::Missing)
    }

    /// Whether some tier has a value under `key`. Nothing is refilled. Cancel-safe.
    pub async fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.engine.contains(&self.key(key), &self.store.ty).await
    }

    /// The value under `key` if an in-process tier has it: without waiting, without a message, without a refill, and
    /// not counted among the region's reads. What only another tier holds is not found.
    pub fn peek<Q>(&self, key: &Q) -> Option<Hit<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.with_probe(key, |probe| self.store.engine.peek_all(probe))
    }

    /// Removes every entry of the region, of every version. (Past 4,096 prefixes cleared in the life of a cache, a
    /// further one clears them all.) When it returns, no read gives a value written before.
    ///
    /// # Errors
    /// As [`Cache::clear`].
    pub async fn clear(&self) -> Result<()> {
        let prefix = self.prefix.split(':').next().unwrap_or_default();
        self.store.engine.clear(Scope::Prefix(prefix.into())).await
    }

    /// The value under `key`, loaded by `loader` if no tier has it.
    ///
    /// Concurrent calls for a key run one loader between them. If the one who runs it is dropped or panics, another
    /// takes over with its own. A mutation of the key meanwhile lets those who asked before have the result, but it
    /// is not stored, and whoever asks later loads anew. Loaded values are stored in the background, except in a
    /// topmost memory tier, where the next call finds them. After shutdown the loader still runs, and nothing is
    /// stored.
    ///
    /// # Errors
    /// [`ErrorKind::Load`] with the loader's error as its source, the same for all who waited;
    /// [`ErrorKind::Timeout`] past the [load deadline](RegionBuilder::load_deadline);
    /// [`ErrorKind::Encode`] for the region's first value if it would not read back.
    pub async fn get_or_load<Q, F, Fut, E>(&self, key: &Q, loader: F) -> Result<Hit<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.at_once(key) {
            Ok(hit) => Ok(hit),
            Err(key) => Box::pin(self.store.get_or_load(&key, self.ttl, self.load_deadline, loader)).await,
        }
    }

    /// The dictionary that the region trains, if it does.
    #[cfg(feature = "zstd")]
    pub fn dictionary(&self) -> Option<&crate::codec::RegionDictionary> {
        self.store.ty.dictionary().map(|dictionary| &**dictionary)
    }

    /// The region's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cache it belongs to.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The key under which the tiers hold the entry.
    pub fn key<Q>(&self, key: &Q) -> CacheKey
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.with_probe(key, |probe| probe.to_key())
    }

    /// The topmost tier's answer if it can give one at once; otherwise the key, built.
    fn at_once<Q: KeyParts + ?Sized>(&self, key: &Q) -> Result<Hit<T>, CacheKey> {
        self.with_probe(key, |probe| self.store.at_once(probe).ok_or_else(|| probe.to_key()))
    }

    /// Builds the key's text in a buffer of this thread: a look-up allocates nothing.
    fn with_probe<Q: KeyParts + ?Sized, R>(&self, key: &Q, f: impl FnOnce(&KeyProbe<'_>) -> R) -> R {
        thread_local! {
            static TEXT: Cell<String> = const { Cell::new(String::new()) };
        }
        // Taken out, not borrowed: a key that itself asks a cache finds an empty buffer, not a panic.
        let mut text = TEXT.with(Cell::take);
        text.clear();
        text.push_str(&self.prefix);
        key.write(&mut KeyWriter::resume(&mut text));
        let result = f(&KeyProbe::from_canonical(&text));
        TEXT.with(|kept| kept.set(text));
        result
    }
}

impl<T, K: ?Sized> Clone for Region<T, K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            cache: self.cache.clone(),
            name: Arc::clone(&self.name),
            prefix: Arc::clone(&self.prefix),
            types: PhantomData,
            ..*self
        }
    }
}

impl<T, K: ?Sized> fmt::Debug for Region<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("name", &self.name).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl<T, K: ?Sized> fmt::Debug for RegionBuilder<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
