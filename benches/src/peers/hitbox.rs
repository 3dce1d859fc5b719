//! hitbox 0.2: moka tiers behind its composition, with bincode, the faster of its formats (its default is JSON).

use std::future::{Ready, ready};

use chrono::Utc;
use hitbox_backend::composition::policy::RefillPolicy;
use hitbox_backend::format::{BincodeFormat, Format};
use hitbox_backend::{Backend, CacheBackend, CompositionBackend};
use hitbox_core::{
    BoxContext, CacheContext, CacheKey, CachePolicy, CacheValue, CacheableResponse, DisabledOffload,
    EntityPolicyConfig, KeyPart, Predicate, PredicateResult, ReadMode,
};
use hitbox_moka::MokaBackend;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::values::TTL;

/// Two moka tiers as one cache. It has nothing to do in the background: its policies are the defaults, but refills.
pub type Composed<F = BincodeFormat> = CompositionBackend<MokaBackend<F>, MokaBackend<F>, DisabledOffload>;

/// A moka tier with bincode.
pub fn moka(label: &'static str, entries: u64) -> MokaBackend<BincodeFormat> {
    moka_in(BincodeFormat, label, entries)
}

/// A moka tier with a format.
pub fn moka_in<F: Format>(format: F, label: &'static str, entries: u64) -> MokaBackend<F> {
    MokaBackend::builder().label(label).max_entries(entries).value_format(format).build()
}

/// Composes two tiers, with refills.
pub fn compose<A: Backend, B: Backend>(upper: A, lower: B) -> CompositionBackend<A, B, DisabledOffload> {
    CompositionBackend::new(upper, lower, DisabledOffload).refill(RefillPolicy::Always)
}

/// The key of an id, as hitbox's users build it; its text is that of [`crate::peers::tierkeep`]'s.
pub fn key(region: &str, id: u64) -> CacheKey {
    CacheKey::new(region, 1, vec![KeyPart::new(id.to_string(), None::<&str>)])
}

/// Reads a value and refills as hitbox's own middleware does: what came from the lower tier is set again, which
/// writes the upper one.
///
/// # Panics
/// If the backend fails: memory does not.
pub async fn get<T, B>(backend: &B, key: &CacheKey) -> Option<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    B: CacheBackend,
{
    let mut context = context();
    let value = backend.get::<Response<T>>(key, &mut context).await.expect("a backend in memory")?;
    if context.read_mode() == ReadMode::Refill {
        backend.set::<Response<T>>(key, &value, &mut context).await.expect("a backend in memory");
    }
    Some(value.into_inner())
}

/// Stores a value for the TTL that all sides use.
///
/// # Panics
/// If the backend fails: memory does not.
pub async fn set<T, B>(backend: &B, key: &CacheKey, value: T)
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    B: CacheBackend,
{
    let value = CacheValue::new(value, Some(Utc::now() + TTL), None);
    backend.set::<Response<T>>(key, &value, &mut context()).await.expect("a backend in memory");
}

fn context() -> BoxContext {
    CacheContext::default().boxed()
}

/// A response that is cached as the value it holds.
pub struct Response<T>(T);

impl<T: Clone + Send + Sync + 'static> CacheableResponse for Response<T> {
    type Cached = T;
    type Subject = Self;
    type IntoCachedFuture = Ready<CachePolicy<T, Self>>;
    type FromCachedFuture = Ready<Self>;

    async fn cache_policy<P>(
        self,
        predicates: P,
        config: &EntityPolicyConfig,
    ) -> CachePolicy<CacheValue<T>, Self>
    where
        P: Predicate<Subject = Self> + Send + Sync,
    {
        match predicates.check(self).await {
            PredicateResult::Cacheable(Self(value)) => {
                CachePolicy::Cacheable(CacheValue::from_config(value, config))
            }
            PredicateResult::NonCacheable(response) => CachePolicy::NonCacheable(response),
        }
    }

    fn into_cached(self) -> Self::IntoCachedFuture {
        ready(CachePolicy::Cacheable(self.0))
    }

    fn from_cached(cached: T) -> Self::FromCachedFuture {
        ready(Self(cached))
    }
}
