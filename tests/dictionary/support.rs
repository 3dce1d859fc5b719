//! Records that resemble each other, and a store that compresses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tierkeep::codec::frame::Header;
use tierkeep::codec::{Compressor, DictionaryOptions, ZstdCompressor};
use tierkeep::{
    Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, Raw, Region, Tier, async_trait,
};
use tierkeep_sim::MapBackend;
use tierkeep_smol::SmolRuntime;

pub(crate) fn hash(n: u64) -> u64 {
    twox_hash::XxHash3_64::oneshot(&n.to_le_bytes())
}

/// About two hundred bytes of JSON, of which a fifth differs from record to record.
pub(crate) fn record(n: u64) -> String {
    let noise = hash(n);
    let city = ["Reykjavik", "Montevideo", "Ulaanbaatar", "Antananarivo"][noise as usize % 4];
    format!(
        r#"{{"id":{n},"user":"u{:06x}","city":"{city}","active":{},"balance":{},"roles":["reader","writer"],"created":"2026-0{}-1{}T0{}:00:00Z","note":"none so far today","locale":"en-GB","theme":"dark"}}"#,
        noise & 0xFF_FFFF,
        noise >> 24 & 1 == 1,
        noise >> 25 & 0xFFFF,
        noise >> 41 & 7,
        noise >> 44 & 7,
        noise >> 47 & 7,
    )
}

/// Records of another kind.
pub(crate) fn other_record(n: u64) -> String {
    let noise = hash(n);
    format!(
        "<order number='{n}' customer='{:x}'><line sku='{}' count='{}' unit='piece'/><delivery carrier='post' \
         express='no' insured='yes'/><payment method='invoice' currency='ISK' due='P30D'/></order>",
        noise & 0xFFFF,
        noise >> 16 & 0xFFF,
        noise >> 28 & 7,
    )
}

/// A store in a map, which counts how often it is read.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) map: MapBackend,
    pub(crate) compressor: Arc<dyn Compressor>,
    pub(crate) reads: Arc<AtomicUsize>,
    /// Whether it refuses to take dictionaries.
    pub(crate) refuses: Arc<AtomicBool>,
    /// Whether other processes write to it too.
    pub(crate) shared: bool,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::with(ZstdCompressor::default())
    }

    pub(crate) fn with(compressor: impl Compressor) -> Self {
        Self {
            map: MapBackend::new(),
            compressor: Arc::new(compressor),
            reads: Arc::default(),
            refuses: Arc::default(),
            shared: false,
        }
    }

    /// A tier that a busy machine does not hurry.
    pub(crate) fn tier(&self) -> Tier {
        let minute = Duration::from_secs(60);
        Tier::new(self.clone()).read_deadline(minute).write_deadline(minute).open_deadline(minute)
    }

    /// What it holds under `key`: the header and the payload's length.
    pub(crate) fn header(&self, key: &CacheKey) -> Header {
        Header::parse(&self.map.get(key).unwrap()).unwrap()
    }

    /// The keys of the dictionaries that it holds.
    pub(crate) fn dictionaries(&self) -> Vec<CacheKey> {
        let contents = self.map.contents();
        contents.into_keys().filter(|key| key.prefix() == "tierkeep-dictionary").collect()
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Backend for Store {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.map.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        if key.prefix() == "tierkeep-dictionary" && self.refuses.load(Ordering::SeqCst) {
            return Err(tierkeep::Error::backend("no room for it"));
        }
        self.map.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.map.remove(key).await
    }

    fn compressor(&self) -> &dyn Compressor {
        &*self.compressor
    }

    fn shared(&self) -> bool {
        self.shared
    }
}

/// Small enough to be trained after a few hundred records.
pub(crate) fn small() -> DictionaryOptions {
    DictionaryOptions::default().size(4 << 10).samples(96 << 10)
}

pub(crate) async fn open(store: &Store) -> (Cache, Region<String, u64>) {
    let cache = Cache::builder(SmolRuntime::new()).tier(store.tier()).build().await.unwrap();
    let region = cache.region("records").no_expiry().dictionary(small()).build().unwrap();
    (cache, region)
}

/// Writes records until there is a dictionary; returns its id.
pub(crate) async fn train(region: &Region<String, u64>) -> u32 {
    train_with(region, record, 0).await
}

/// Writes records until there is another dictionary than `old`.
pub(crate) async fn train_with(region: &Region<String, u64>, record: fn(u64) -> String, old: u32) -> u32 {
    for n in 0..200_000 {
        region.set(&(n % 3_000), record(n % 3_000)).await.unwrap();
        let current = region.dictionary().unwrap().current().map_or(0, |dictionary| dictionary.id());
        if current != old {
            return current;
        }
        smol::future::yield_now().await;
    }
    panic!("no dictionary came of it: {:?}", region.dictionary());
}

/// A store that a cache with a dictionary has written to, and the dictionary's id.
pub(crate) async fn written() -> (Store, u32, CacheKey) {
    let store = Store::new();
    let (cache, region) = open(&store).await;
    let id = train(&region).await;
    for n in 0..20 {
        region.set(&n, record(n)).await.unwrap();
    }
    cache.shutdown(std::time::Duration::from_secs(60)).await;
    let keys = store.dictionaries();
    assert_eq!(keys.len(), 1);
    (store, id, keys[0].clone())
}
