//! The way of a read that decodes nothing: byte tiers from the top down, until one has a sound archive.

use super::engine::Engine;
use super::read::{Held, Usable};
use super::route::RouteTier;
use crate::backend::Holds;
use crate::error::Result;
use crate::hit::HitInfo;
use crate::key::CacheKey;
use crate::tier::Counters;

impl Engine {
    /// What `see` makes of the first sound archive under `key`. It is called with the archive's bytes for each tier that
    /// has any, and reports those that are not sound.
    pub(crate) async fn view<R, S>(&self, key: &CacheKey, see: S) -> Option<R>
    where
        R: Send + 'static,
        S: Fn(&[u8], &HitInfo) -> Result<R> + Clone + Send + 'static,
    {
        let route = self.route.load_full();
        for tier in route.tiers.iter().filter(|tier| tier.core.holds == Holds::Bytes) {
            // A tier that cannot answer is a miss, counted by its kind.
            if let Ok(Some(output)) = self.view_tier(tier, key, see.clone()).await {
                return Some(output);
            }
        }
        None
    }

    async fn view_tier<R, S>(&self, tier: &RouteTier, key: &CacheKey, see: S) -> Result<Option<R>>
    where
        R: Send + 'static,
        S: Fn(&[u8], &HitInfo) -> Result<R> + Send + 'static,
    {
        let counters = &tier.core.counters;
        let seen = match self.fetch(tier, key).await? {
            Ok(Some(entry)) => match self.usable(tier, key, entry) {
                Ok(Some(Usable { meta, now, held: Held::Frame(header, payload) })) => {
                    #[cfg(feature = "zstd")]
                    self.find_dictionary(tier, &header, None).await;
                    let info = HitInfo::new(tier.core.label.clone(), meta, now);
                    let see = move |archive: &[u8]| see(archive, &info);
                    self.codecs.view(header, payload, see).await.map(Some)
                }
                // A byte tier has no objects.
                Ok(_) => return Ok(None),
                Err(error) => Err(error),
            },
            Ok(None) => {
                Counters::one(&counters.misses);
                return Ok(None);
            }
            Err(error) => {
                counters.degraded(error.kind());
                return Err(error);
            }
        };
        match &seen {
            Ok(_) => Counters::one(&counters.hits),
            Err(error) => counters.degraded(error.kind()),
        }
        tier.core.note_decode(&seen);
        seen
    }
}
