//! Reading rkyv archives where they are (feature `rkyv_format`).

use std::borrow::Borrow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rkyv::Archive;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::access;
use crate::error::{Error, ErrorKind};
use crate::hit::HitInfo;
use crate::key::KeyParts;
use crate::observe::Began;
use crate::region::Region;

impl<T, K: ?Sized> Region<T, K>
where
    T: Archive + Serialize + DeserializeOwned + Send + Sync + 'static,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>,
{
    /// What `view` makes of the archive under `key`, read where the tier's bytes are: validated, but not decoded. `None`:
    /// no byte tier has a sound archive for the key. Cannot fail: a broken tier is a miss.
    ///
    /// For tiers whose format is [`RkyvFormat`](crate::codec::RkyvFormat). Byte tiers are asked from the top down,
    /// whatever the read policy, and nothing is refilled. Tiers that hold objects (memory, moka) are passed over: what
    /// they have is decoded already, and [`peek`](Self::peek) gives it. Either way a value is never older than what
    /// [`get`](Self::get) gives.
    ///
    /// An archive that the store hands back at an address that does not suit it is copied first, which
    /// [`CodecStats::archived_copies`](crate::codec::CodecStats::archived_copies) counts; a compressed one is unpacked
    /// to a suitable address. Damaged bytes are a counted decode failure, and a miss; an entry in another format is
    /// counted as a value of another type.
    ///
    /// `view` runs in the caller's task, or, where checking the archive is expected to take longer than the codec's
    /// [budget](crate::codec::CodecOptions::inline_budget), on the blocking pool: hence `Send` and `'static`. If it
    /// panics, so does this call. Cancel-safe; a view that runs on the pool already runs to its end.
    ///
    /// ```
    /// use rkyv::{Archive, Deserialize, Serialize};
    /// use tierkeep::codec::{Format, RkyvFormat};
    /// # use tierkeep::{Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, Raw, Region, async_trait};
    /// # use tierkeep_sim::MapBackend;
    ///
    /// #[derive(Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
    /// struct Page {
    ///     title: String,
    ///     words: Vec<u64>,
    /// }
    /// # struct Store(MapBackend, RkyvFormat);
    /// # #[async_trait]
    /// # impl Backend for Store {
    /// #     async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> { self.0.read(key).await }
    /// #     async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> { self.0.write(key, value).await }
    /// #     async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> { self.0.remove(key).await }
    /// #     fn value_format(&self) -> &dyn Format { &self.1 }
    /// # }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let runtime = tierkeep_tokio::TokioRuntime::current();
    /// let store = Store(MapBackend::new(), RkyvFormat::new().register::<Page>());
    /// let cache = Cache::builder(runtime).tier(store).build().await?;
    /// let pages: Region<Page, u64> = cache.region("pages").no_expiry().build()?;
    /// pages.set(&1, Page { title: "Tea".into(), words: vec![3; 10_000] }).await?;
    ///
    /// let words = pages.read_archived(&1, |page, hit| (page.words.len(), hit.tier().to_string())).await;
    /// assert_eq!(words, Some((10_000, "backend".to_owned())));
    /// assert_eq!(cache.inspect().codec.inline_decodes + cache.inspect().codec.pooled_decodes, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_archived<Q, R, F>(&self, key: &Q, view: F) -> Option<R>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
        R: Send + 'static,
        F: FnOnce(&T::Archived, &HitInfo) -> R + Send + 'static,
    {
        let engine = &self.store.engine;
        if engine.is_closed() {
            return None;
        }
        let key = self.key(key);
        engine.note_read(&key.probe());
        // Several tiers may hold bytes that are not sound before one shows the archive: only that takes the view.
        let view = Arc::new(Mutex::new(Some(view)));
        let see = move |bytes: &[u8], hit: &HitInfo| {
            let archive = access::<T>(bytes)?;
            let view = view.lock().unwrap_or_else(PoisonError::into_inner).take();
            let view = view.ok_or_else(|| Error::new(ErrorKind::Closed, "the archive was viewed already"))?;
            Ok(catch_unwind(AssertUnwindSafe(|| view(archive, hit))))
        };
        let began = Began::now(&engine.runtime);
        let seen = Box::pin(engine.view(&key, see)).await;
        self.store.shared.meter.read(seen.is_some(), began, &engine.runtime);
        // The caller's own panic.
        seen.map(|output| output.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}
