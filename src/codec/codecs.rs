//! The codec of a cache: which formats and compressors it knows, its limits, and where its work runs.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::compressor::{Compressor, PassthroughCompressor};
use super::format::{Format, JsonFormat, PostcardFormat};
use super::frame::{Encoded, Header};
use super::options::CodecOptions;
use super::pool::{CodecPool, panicked};
use super::stats::{CodecStats, Counters, Direction, add};
use super::typed::ValueType;
use super::work::{CodecWork, Work, timed};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RuntimeHandle, panic_message};
use crate::value::{Object, Raw};

/// Turns values into frames' payloads and back, in place or on the blocking pool.
pub struct Codecs {
    options: CodecOptions,
    formats: BTreeMap<u8, Arc<dyn Format>>,
    /// By id and dictionary.
    compressors: BTreeMap<(u8, u32), Arc<dyn Compressor>>,
    pool: Arc<CodecPool>,
    counters: Counters,
    work: Option<CodecWork>,
}

impl Codecs {
    /// With the engine's formats and compressors, and those of `options`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as [`CodecOptions::validate`].
    pub fn new(options: CodecOptions, runtime: &RuntimeHandle) -> Result<Arc<Self>> {
        Self::told(options, runtime, None)
    }

    /// As [`new`](Self::new), telling `work` how long things take.
    pub(crate) fn told(
        options: CodecOptions,
        runtime: &RuntimeHandle,
        work: Option<CodecWork>,
    ) -> Result<Arc<Self>> {
        options.validate()?;
        let workers = options.workers.unwrap_or_else(|| runtime.parallelism().saturating_sub(1).max(1));
        let pool = CodecPool::new(runtime.clone(), workers, options.queue);
        let mut formats: BTreeMap<u8, Arc<dyn Format>> = BTreeMap::new();
        let built_in: [Arc<dyn Format>; 2] = [Arc::new(PostcardFormat), Arc::new(JsonFormat)];
        for format in built_in.iter().chain(&options.formats) {
            formats.insert(format.id(), Arc::clone(format));
        }
        let mut compressors: BTreeMap<(u8, u32), Arc<dyn Compressor>> = BTreeMap::new();
        for compressor in built_in_compressors().iter().chain(&options.compressors) {
            compressors.insert((compressor.id(), compressor.dictionary()), Arc::clone(compressor));
        }
        Ok(Arc::new(Self { options, formats, compressors, pool, counters: Counters::default(), work }))
    }

    /// Whether what `backend` encodes with can be read again; to be asked once per tier.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the format or compressor that is not registered, or stands under another's id.
    pub fn accepts(&self, format: &dyn Format, compressor: &dyn Compressor) -> Result<()> {
        let (id, name) = (format.id(), format.name());
        if self.formats.get(&id).is_none_or(|known| known.name() != name) {
            return Err(unregistered("format", id, name));
        }
        let (id, name) = (compressor.id(), compressor.name());
        let known = self.compressors.get(&(id, compressor.dictionary()));
        if known.is_none_or(|known| known.name() != name) {
            return Err(unregistered("compressor", id, name));
        }
        Ok(())
    }

    /// Encodes `value` here and now. It is stored plain where compression does not make it shorter.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] above the limit, [`ErrorKind::Encode`] or [`ErrorKind::Panicked`] if the type, format
    /// or compressor fails, [`ErrorKind::Config`] if the result could not be read again.
    pub fn encode_now(
        &self,
        value: &Object,
        ty: &dyn ValueType,
        format: &dyn Format,
        compressor: &dyn Compressor,
    ) -> Result<Encoded> {
        self.encode_counted(value, ty, format, compressor, &self.counters.inline)
    }

    /// Decodes a payload here and now, with the format and compressor that its header names.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the bytes are damaged, too large, of an unknown format or not of the type;
    /// [`ErrorKind::Panicked`] if the type, format or compressor panics on them.
    pub fn decode_now(&self, header: &Header, payload: &Raw, ty: &dyn ValueType) -> Result<Object> {
        self.decode_counted(header, payload, ty, &self.counters.inline)
    }

    /// Encodes `value` as `backend` wants it: in place if it is small, else on the pool. If the future is dropped, a
    /// job that runs already runs to its end for nothing.
    ///
    /// # Errors
    /// As [`encode_now`](Self::encode_now), and [`ErrorKind::Overloaded`] if the pool is full.
    pub async fn encode(
        self: &Arc<Self>,
        value: Object,
        ty: Arc<dyn ValueType>,
        backend: Arc<dyn Backend>,
    ) -> Result<Encoded> {
        let limit = match backend.compressor().id() {
            0 => self.options.inline_encode,
            _ => self.options.inline_compress.min(self.options.inline_encode),
        };
        if !exceeds(&value, &*ty, limit) {
            return self.encode_now(&value, &*ty, backend.value_format(), backend.compressor());
        }
        let this = Arc::clone(self);
        let job = move || {
            let (format, compressor) = (backend.value_format(), backend.compressor());
            this.encode_counted(&value, &*ty, format, compressor, &this.counters.pooled)
        };
        self.pool.run(job).await?
    }

    /// Decodes a payload: in place if it is small, else on the pool. If the future is dropped, a job that runs already
    /// runs to its end for nothing.
    ///
    /// # Errors
    /// As [`decode_now`](Self::decode_now), and [`ErrorKind::Overloaded`] if the pool is full.
    pub async fn decode(
        self: &Arc<Self>,
        header: Header,
        payload: Raw,
        ty: Arc<dyn ValueType>,
    ) -> Result<Object> {
        if header.plain_len.max(payload.len()) <= self.options.inline_decode {
            return self.decode_now(&header, &payload, &*ty);
        }
        let this = Arc::clone(self);
        let job = move || this.decode_counted(&header, &payload, &*ty, &this.counters.pooled);
        self.pool.run(job).await?
    }

    /// Whether `value` reads back from what `backend` would store: see [`ValueType::check`]. In place if it is small,
    /// else on the pool.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if it does not, [`ErrorKind::Panicked`], and [`ErrorKind::Overloaded`] if the pool is full.
    pub async fn check(
        self: &Arc<Self>,
        value: Object,
        ty: Arc<dyn ValueType>,
        backend: Arc<dyn Backend>,
    ) -> Result<()> {
        if !exceeds(&value, &*ty, self.options.inline_encode) {
            return contained(|| ty.check(&value, backend.value_format()));
        }
        self.pool.run(move || ty.check(&value, backend.value_format())).await?
    }

    /// What `value` weighs in memory, in bytes: counted in place if it is small, else on the pool.
    ///
    /// # Errors
    /// [`ErrorKind::Panicked`] if the application's weigher panics, [`ErrorKind::Overloaded`] if the pool is full.
    pub async fn weigh(self: &Arc<Self>, value: Object, ty: Arc<dyn ValueType>) -> Result<u32> {
        if !exceeds(&value, &*ty, self.options.inline_encode) {
            return contained(|| Ok(ty.weigh(&value)));
        }
        self.pool.run(move || ty.weigh(&value)).await
    }

    /// The counters so far.
    pub fn stats(&self) -> CodecStats {
        CodecStats {
            rejected: self.pool.rejected(),
            running: self.pool.running(),
            waiting: self.pool.waiting(),
            ..self.counters.snapshot()
        }
    }

    /// The limits in force.
    pub fn options(&self) -> &CodecOptions {
        &self.options
    }

    fn encode_counted(
        &self,
        value: &Object,
        ty: &dyn ValueType,
        format: &dyn Format,
        compressor: &dyn Compressor,
        place: &Direction,
    ) -> Result<Encoded> {
        add(&place.encode, 1);
        let encode = || contained(|| self.encode_value(value, ty, format, compressor));
        let result = timed(self.work.as_ref(), Work::Encode, encode);
        match &result {
            Ok(encoded) => add(&self.counters.bytes.encode, encoded.payload().len()),
            Err(_) => add(&self.counters.failures.encode, 1),
        }
        result
    }

    fn encode_value(
        &self,
        value: &Object,
        ty: &dyn ValueType,
        format: &dyn Format,
        compressor: &dyn Compressor,
    ) -> Result<Encoded> {
        self.accepts(format, compressor)?;
        let mut buffer = Encoded::buffer(192);
        ty.encode(value, format, &mut buffer)?;
        let plain = Encoded::appended(&buffer).ok_or_else(|| cut_into(format.name()))?;
        let size = plain.len();
        if size > self.options.max_value {
            let message = format!(
                "a `{}` of {size} bytes is over the limit of {}",
                ty.type_name(),
                self.options.max_value
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if compressor.id() != 0 && size > 0 && size >= compressor.min_size() {
            let mut packed = Encoded::buffer(size);
            timed(self.work.as_ref(), Work::Compress, || compressor.compress(plain, &mut packed))?;
            let length = Encoded::appended(&packed).ok_or_else(|| cut_into(compressor.name()))?.len();
            if length < size {
                let (id, dictionary) = (compressor.id(), compressor.dictionary());
                return Ok(Encoded::packed(packed, format.id(), id, dictionary, size));
            }
        }
        Ok(Encoded::plain(buffer, format.id(), format.alignment()))
    }

    fn decode_counted(
        &self,
        header: &Header,
        payload: &Raw,
        ty: &dyn ValueType,
        place: &Direction,
    ) -> Result<Object> {
        add(&place.decode, 1);
        add(&self.counters.bytes.decode, payload.len());
        let decode = || contained(|| self.decode_value(header, payload, ty));
        let result = timed(self.work.as_ref(), Work::Decode, decode);
        if result.is_err() {
            add(&self.counters.failures.decode, 1);
        }
        result
    }

    /// Cheap checks first; nothing is allocated by a size that has not been checked.
    fn decode_value(&self, header: &Header, payload: &Raw, ty: &dyn ValueType) -> Result<Object> {
        let (size, limit) = (header.plain_len, self.options.max_value);
        if size > limit || payload.len() > limit {
            return Err(decode(format!("the value claims {size} bytes, over the limit of {limit}")));
        }
        let format = self.formats.get(&header.format).ok_or_else(|| unknown("format", header.format))?;
        header.verify(payload)?;
        if header.compressor == 0 {
            return ty.decode(payload, &**format);
        }
        let compressor = self.compressors.get(&(header.compressor, header.dictionary)).ok_or_else(|| {
            if header.dictionary == 0 {
                unknown("compressor", header.compressor)
            } else {
                unknown(&format!("dictionary {} of compressor", header.dictionary), header.compressor)
            }
        })?;
        let plain = timed(self.work.as_ref(), Work::Decompress, || compressor.decompress(payload, size))?;
        if plain.len() != size {
            return Err(decode(format!("the value unpacked to {} bytes, not to {size}", plain.len())));
        }
        ty.decode(&plain, &**format)
    }
}

impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codecs")
            .field("options", &self.options)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

fn built_in_compressors() -> Vec<Arc<dyn Compressor>> {
    vec![
        Arc::new(PassthroughCompressor),
        #[cfg(feature = "gzip")]
        Arc::new(super::compressor::GzipCompressor::default()),
        #[cfg(feature = "zstd")]
        Arc::new(super::compressor::ZstdCompressor::default()),
    ]
}

/// Whether the value is over `limit`. One that cannot be measured without panicking counts as over: its panic is
/// reported where it is encoded.
fn exceeds(value: &Object, ty: &dyn ValueType, limit: usize) -> bool {
    catch_unwind(AssertUnwindSafe(|| ty.exceeds(value, limit))).unwrap_or(true)
}

/// Runs the code of users and formats; a panic in it is an error.
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing of ours is changed within, so nothing is left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&panic_message(&*panic))))
}

fn unregistered(what: &str, id: u8, name: &str) -> Error {
    let message =
        format!("{what} `{name}` with id {id} is not registered with the cache, so nothing could read it");
    Error::new(ErrorKind::Config, message)
}

fn unknown(what: &str, id: u8) -> Error {
    decode(format!("{what} {id} is not known to this build or not registered"))
}

fn cut_into(name: &str) -> Error {
    Error::new(ErrorKind::Encode, format!("`{name}` removed bytes that were not its own"))
}

fn decode(message: String) -> Error {
    Error::new(ErrorKind::Decode, message)
}
