//! Typed calls on a backend by itself, without a cache around it.

use std::any::TypeId;
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Backend, BackendResult, Holds};
use crate::codec::{
    self, AnyCompressor, Compressor, Format, Known, MAX_VALUE, Scratch, Tools, Typed, ValueType, contained,
    frame,
};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::value::{CacheValue, DeleteStatus, Entry, Meta, Object, Payload, Raw};

/// Typed `get`, `set` and `delete`. Every [`Backend`] has them, also behind `&dyn Backend`, `Box<dyn Backend>` and
/// `Arc<dyn Backend>`, and so does a running [`CompositionBackend`](crate::composition::CompositionBackend).
///
/// ```
/// use std::sync::Arc;
/// use tierkeep::{Backend, CacheBackend, CacheKey, CacheValue, DeleteStatus, KeyPart, MemoryBackend};
///
/// # futures_util::FutureExt::now_or_never(async {
/// let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::entries(1000));
/// let key = CacheKey::new("greeting", 1, [KeyPart::new("lang", Some("en"))]);
///
/// backend.set::<String>(&key, CacheValue::new("hello".to_owned(), None, None)).await?;
/// let value = backend.get::<String>(&key).await?;
/// assert_eq!(value.unwrap().data().as_str(), "hello");
/// assert_eq!(backend.delete(&key).await?, DeleteStatus::Deleted(1));
/// # Ok::<(), tierkeep::Error>(())
/// # }).unwrap().unwrap();
/// ```
///
/// On a bare backend there is **no runtime**: values are encoded and decoded in place, however large they are, with the
/// backend's own format and compressor, and nothing limits how long the store takes. There is **no clock**: an entry
/// whose `expire` lies in the past is returned as it is, unless the store has expired it. And there is **no order**:
/// concurrent calls end as the store applies them. A backend that must be [opened](Backend::open) answers
/// [`ErrorKind::Unavailable`] until it is.
///
/// What is stored is what a cache stores: in byte stores the same frame, in object stores the value itself. A cache over
/// the same backend reads these entries and is read by them. As they carry no stamp, they count as older than anything
/// that cache wrote: once it has been cleared, it sees none of them again, and their age counts from 1970.
pub trait CacheBackend: Send + Sync {
    /// The value under `key` with its expiry stamps, shared with the store if that holds objects.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// What the store reports; [`ErrorKind::Decode`] if what it holds is damaged, over 16 MiB, in a format that is
    /// neither the engine's nor the backend's, or not a `T`; [`ErrorKind::TypeMismatch`] for an object of another type.
    fn get<T>(
        &self,
        key: &CacheKey,
    ) -> impl Future<Output = BackendResult<Option<CacheValue<Arc<T>>>>> + Send
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Stores `value`, a `T` or an `Arc<T>`, with its expiry stamps.
    ///
    /// Dropped before it completes, the value may or may not be stored.
    ///
    /// # Errors
    /// What the store reports; [`ErrorKind::Encode`] or [`ErrorKind::Panicked`] if the value cannot be encoded;
    /// [`ErrorKind::TooLarge`] over 16 MiB.
    fn set<T>(
        &self,
        key: &CacheKey,
        value: CacheValue<impl Into<Arc<T>>>,
    ) -> impl Future<Output = BackendResult<()>> + Send
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Removes the value under `key`.
    ///
    /// Dropped before it completes, the value may or may not be gone.
    ///
    /// # Errors
    /// What the store reports.
    fn delete(&self, key: &CacheKey) -> impl Future<Output = BackendResult<DeleteStatus>> + Send;
}

impl<B: Backend + ?Sized> CacheBackend for B {
    async fn get<T>(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Arc<T>>>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let entry = self.read_entries(std::slice::from_ref(key)).await.pop().unwrap_or_else(no_answer)?;
        let Some(entry) = entry else { return Ok(None) };
        let value = match entry.payload {
            Payload::Object(object, _) => Ok((object, entry.meta)),
            Payload::Bytes(raw) => contained(|| open::<T>(&raw, key, self.value_format(), self.compressor())),
        };
        let value = value.and_then(|(object, meta)| {
            let object = Arc::downcast::<T>(object).map_err(|_| of_another_type::<T>())?;
            Ok(CacheValue::new(object, meta.expire, meta.stale))
        });
        value.map(Some).map_err(|error| error.at_tier(&self.label()).for_key(key))
    }

    fn set<T>(
        &self,
        key: &CacheKey,
        value: CacheValue<impl Into<Arc<T>>>,
    ) -> impl Future<Output = BackendResult<()>> + Send
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let value: CacheValue<Arc<T>> = value.map(Into::into);
        async move {
            let (expire, stale) = (value.expire(), value.stale());
            let meta = Meta { expire, stale, ..Meta::default() };
            let prepared = contained(|| prepare(self, key, value.into_inner(), meta));
            match prepared.map_err(|error| error.at_tier(&self.label()).for_key(key))? {
                // Not as an entry: its stamp would tell a store that it is older than every clear.
                Payload::Bytes(raw) => self.write(key, CacheValue::new(raw, expire, stale)).await,
                object => {
                    let entries = vec![(key.clone(), Entry::new(object, meta))];
                    self.write_entries(entries).await.pop().unwrap_or_else(no_answer)
                }
            }
        }
    }

    async fn delete(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.remove(key).await
    }
}

/// What all backends by themselves share.
static SCRATCH: Scratch = Scratch::new(4);
static TOOLS: Tools<'_> = Tools { max_value: MAX_VALUE, work: None, scratch: &SCRATCH };

/// What the backend holds of a value.
fn prepare<T>(
    backend: &(impl Backend + ?Sized),
    key: &CacheKey,
    value: Arc<T>,
    meta: Meta,
) -> BackendResult<Payload>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let ty = Typed::<T>::new(None);
    if let Holds::Objects { weighed } = backend.holds() {
        let object: Object = value;
        let weight = if weighed { ty.weigh(&object) } else { 0 };
        return Ok(Payload::Object(object, weight));
    }
    let (format, compressor) = (backend.value_format(), backend.compressor());
    let write = |out: &mut Vec<u8>| ty.write(&value, format, out);
    let encoded = codec::encode(write, ty.type_name(), format, compressor, TOOLS)?;
    Ok(Payload::Bytes(encoded.seal(key, &meta)))
}

/// The value in a frame.
fn open<T>(
    raw: &Raw,
    key: &CacheKey,
    format: &dyn Format,
    compressor: &dyn Compressor,
) -> BackendResult<(Object, Meta)>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let ty = Typed::<T>::new(None);
    let (header, payload) = frame::open(raw, key)?;
    let known = Own { format, compressor };
    let read = |bytes: &[u8], format: &dyn Format| ty.decode(bytes, format);
    let object = codec::decode(&header, &payload, TypeId::of::<T>(), &known, TOOLS, read)?;
    Ok((object, header.meta))
}

/// What one backend knows: its own format and compressor, and the engine's.
struct Own<'a> {
    format: &'a dyn Format,
    compressor: &'a dyn Compressor,
}

impl Known for Own<'_> {
    fn format(&self, id: u8, _: TypeId) -> Option<&dyn Format> {
        if self.format.id() == id { Some(self.format) } else { codec::built_in_format(id) }
    }

    fn compressor(&self, id: u8, dictionary: u32) -> Option<AnyCompressor<'_>> {
        let own = (self.compressor.id(), self.compressor.dictionary()) == (id, dictionary);
        let built_in = || if dictionary == 0 { codec::built_in_compressor(id) } else { None };
        let known = if own { Some(self.compressor) } else { built_in().map(|known| known as _) };
        known.map(AnyCompressor::Known)
    }
}

fn no_answer<T>() -> BackendResult<T> {
    Err(Error::new(ErrorKind::Backend, "the backend gave no answer for the key"))
}

fn of_another_type<T>() -> Error {
    let name = std::any::type_name::<T>();
    Error::new(ErrorKind::TypeMismatch, format!("the entry is not a `{name}`"))
}
