//! What both services serve: prices, in memory over Redis. Nothing here knows which runtime it is on.

use std::time::Duration;

use tierkeep::backend::{RedisBackend, RedisDriver};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend, Region};

use crate::Failure;

/// The prices of a shop.
#[derive(Debug, Clone)]
pub struct Prices {
    cache: Cache,
    region: Region<u64, str>,
}

/// An answer: a status and a text.
pub type Answer = (u16, String);

impl Prices {
    /// Opens the cache: memory over Redis, with a backplane over the same Redis.
    ///
    /// # Errors
    /// If the URL is none.
    pub async fn open(
        runtime: impl Into<RuntimeHandle>,
        driver: RedisDriver,
        url: &str,
    ) -> Result<Self, Failure> {
        let redis = RedisBackend::builder(driver).url(url).namespace("shop").build()?;
        let cache = Cache::builder(runtime)
            .tier(MemoryBackend::entries(10_000))
            .tier(redis.clone())
            .backplane(redis.backplane())
            .build()
            .await?;
        let region = cache.region("price").ttl(Duration::from_secs(300)).build()?;
        Ok(Self { cache, region })
    }

    /// The price of something, and the tier that knew it.
    pub async fn get(&self, name: &str) -> Answer {
        match self.region.get(name).await {
            Some(hit) => {
                (200, format!("{} from {}\n", *hit, hit.tier().map_or("a load", |tier| tier.as_str())))
            }
            None => (404, "no such price\n".to_owned()),
        }
    }

    /// Sets the price of something to the number in `body`.
    pub async fn put(&self, name: &str, body: &str) -> Answer {
        let Ok(price) = body.trim().parse::<u64>() else { return (400, "a price is a number\n".to_owned()) };
        match self.region.set(name, price).await {
            Ok(()) => (200, "set\n".to_owned()),
            Err(error) => (503, format!("{error}\n")),
        }
    }

    /// How the service stands with the others: the state of the backplane, and how many it hears.
    pub fn peers(&self) -> Answer {
        match self.cache.inspect().backplane {
            Some(backplane) => (200, format!("{:?}, {} others\n", backplane.state, backplane.peers)),
            None => (404, "no backplane\n".to_owned()),
        }
    }
}
