//! Writing behind a store that is away: values show at once, outlive a restart, and reach the store when it is back;
//! what it refuses for good goes to a file of dead letters, and is redriven from there.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tierkeep::backend::async_trait;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::write_behind::{FileLetters, JournalSync, Redriven, Retry, WriteBehind};
use tierkeep::{
    Backend, BackendResult, BreakerOptions, Cache, CacheKey, CacheValue, DeleteStatus, ErrorKind,
    MemoryBackend, Raw, Region, Tier,
};
use tierkeep_tokio::TokioRuntime;

/// A store somewhere else: it can be away, and it may refuse a key.
#[derive(Clone, Default)]
struct Store {
    entries: Arc<Mutex<HashMap<CacheKey, CacheValue<Raw>>>>,
    away: Arc<AtomicBool>,
    picky: Arc<AtomicBool>,
}

impl Store {
    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<CacheKey, CacheValue<Raw>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, key: &CacheKey) -> BackendResult<()> {
        if self.away.load(Ordering::Relaxed) {
            return Err(tierkeep::Error::new(ErrorKind::Backend, "the store is away"));
        }
        if self.picky.load(Ordering::Relaxed) && key.to_string().ends_with(":13") {
            return Err(tierkeep::Error::new(ErrorKind::Backend, "not this one"));
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Store {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.check(key)?;
        Ok(self.entries().get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.check(key)?;
        self.entries().insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.check(key)?;
        Ok(self.entries().remove(key).map_or(DeleteStatus::Missing, |_| DeleteStatus::Deleted(1)))
    }
}

async fn open(store: &Store, directory: &Path) -> tierkeep::Result<(Cache, Region<String, u64>)> {
    let runtime = RuntimeHandle::new(TokioRuntime::current());
    let letters = FileLetters::new(directory.join("letters.jsonl"), runtime.clone());
    let retry = Retry::default().attempts(8).backoff(Duration::from_millis(20), Duration::from_millis(80));
    let behind = WriteBehind::journal(directory.join("journal"), JournalSync::Always)
        .max_delay(Duration::from_millis(20))
        .retry(retry)
        .dead_letters(letters);
    // A breaker would hold a store back that fails so often, as it should; here it would only take time.
    let tier = Tier::new(store.clone()).label("store").breaker(BreakerOptions::disabled());
    let cache = Cache::builder(runtime)
        .tier(MemoryBackend::entries(1_000))
        .tier(tier.write_behind(behind))
        .build()
        .await?;
    let names = cache.region("name").no_expiry().build()?;
    Ok((cache, names))
}

#[expect(clippy::disallowed_methods, reason = "an application on tokio")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::default();

    let (cache, names) = open(&store, directory.path()).await?;
    names.set(&1, "Ada".to_owned()).await?; // returns when it is in the journal
    let shown = names.get(&1).await.ok_or("a pending value shows")?;
    println!("{} is {}", *shown, if store.entries().is_empty() { "pending" } else { "stored already" });
    cache.flush(Duration::from_secs(10)).await?;
    println!("the store holds {} after a flush", store.entries().len());

    store.picky.store(true, Ordering::Relaxed);
    for id in 10..20 {
        names.set(&id, format!("number {id}")).await?;
    }
    let path = directory.path().join("letters.jsonl");
    while cache
        .inspect()
        .tier("store")
        .and_then(|tier| tier.write_behind.as_ref().map(|q| q.letters_delivered))
        != Some(1)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("one letter is in the file; the other nine are stored");

    store.picky.store(false, Ordering::Relaxed);
    let mut letters = FileLetters::read(&path, TokioRuntime::current());
    while let Some(letter) = letters.next().await {
        let letter = letter?;
        let redriven = cache.redrive(&letter).await?;
        println!("{} died of: {:?}; redriven: {}", letter.key, letter.error, redriven == Redriven::Queued);
    }
    cache.flush(Duration::from_secs(10)).await?;
    println!("the store holds {}", store.entries().len());
    cache.shutdown(Duration::from_secs(10)).await;
    drop((cache, names));

    // The store goes away, and then so does the process.
    store.away.store(true, Ordering::Relaxed);
    let (cache, names) = open(&store, directory.path()).await?;
    names.set(&2, "Grace".to_owned()).await?;
    let report = cache.shutdown(Duration::from_millis(50)).await;
    let left =
        report.tiers.iter().filter_map(|tier| tier.write_behind).map(|q| q.left_in_journal).sum::<u64>();
    println!("{left} left in the journal");
    drop((cache, names));

    let (cache, names) = open(&store, directory.path()).await?;
    let shown = names.get(&2).await.ok_or("what the journal has shows")?;
    println!("after the restart, with the store still away: {}", *shown);
    store.away.store(false, Ordering::Relaxed);
    cache.flush(Duration::from_secs(60)).await?;
    println!("the store holds {}", store.entries().len());
    let ended = cache.shutdown(Duration::from_secs(10)).await;
    println!("{}", if ended.clean && store.entries().len() == 12 { "done" } else { "something is missing" });
    Ok(())
}
