//! A backend of your own: anything that can read, write and remove bytes under a key is a tier.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tierkeep::backend::async_trait;
use tierkeep::{
    Backend, BackendLabel, BackendResult, Cache, CacheKey, CacheValue, Compose, DeleteStatus, MemoryBackend,
    Raw, Region, Tier,
};
use tierkeep_tokio::TokioRuntime;
use tokio::sync::RwLock;

/// A map in this process; a store on the network looks the same from here. Batches, expiry, deadlines, encoding and
/// failures are the engine's business.
#[derive(Default)]
struct Shelf(RwLock<HashMap<CacheKey, CacheValue<Raw>>>);

#[async_trait]
impl Backend for Shelf {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.read().await.get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write().await.insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let removed = self.0.write().await.remove(key);
        Ok(removed.map_or(DeleteStatus::Missing, |_| DeleteStatus::Deleted(1)))
    }

    fn label(&self) -> BackendLabel {
        "shelf".into()
    }
}

/// A cache of two tiers; the shelf outlives it.
async fn open(shelf: &Arc<Shelf>) -> tierkeep::Result<(Cache, Region<String, str>)> {
    let tiers = MemoryBackend::entries(100).over(Tier::from_shared(Arc::clone(shelf) as Arc<dyn Backend>));
    let cache = Cache::builder(TokioRuntime::current()).tier(tiers).build().await?;
    let capitals = cache.region("capital").ttl(Duration::from_secs(60)).build()?;
    Ok((cache, capitals))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shelf = Arc::new(Shelf::default());

    let (cache, capitals) = open(&shelf).await?;
    capitals.set("France", "Paris".to_owned()).await?;
    cache.shutdown(Duration::from_secs(10)).await;
    for (key, value) in &*shelf.0.read().await {
        println!("the shelf holds {} bytes under {key}", value.data().len());
    }

    let (cache, capitals) = open(&shelf).await?;
    let capital = capitals.get("France").await.ok_or("the shelf lost it")?;
    println!("{capital}, from the {}", capital.tier().ok_or("no tier")?);
    cache.shutdown(Duration::from_secs(10)).await;
    println!("done");
    Ok(())
}
