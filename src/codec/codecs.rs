//! The codec of a cache: which formats and compressors it knows, its limits, and where its work runs.

use std::any::TypeId;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::coding::{self, AnyCompressor, Known, Tools, contained};
use super::compressor::{Compressor, built_in_compressor};
use super::format::{Format, built_in_format};
use super::frame::{Encoded, Header};
use super::options::CodecOptions;
use super::pace::{CodecRate, Job, Pace, SMALL, Way};
use super::pool::CodecPool;
use super::scratch::Scratch;
use super::stats::{CodecStats, Counters, Direction, add};
use super::typed::ValueType;
use super::work::{CodecWork, Work, timed};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;
use crate::sync::Apart;
use crate::value::{Object, Raw};

/// Turns values into frames' payloads and back, in place or on the blocking pool.
pub struct Codecs {
    options: CodecOptions,
    pool: Arc<CodecPool>,
    counters: Apart<Counters>,
    work: Option<CodecWork>,
    pace: Pace,
    scratch: Scratch,
    runtime: RuntimeHandle,
    #[cfg(feature = "zstd")]
    dictionaries: Arc<super::Dictionaries>,
}

/// The first limits, until enough was measured.
const FIRST: usize = 16 << 10;
const FIRST_COMPRESS: usize = 4 << 10;

/// Above this encoded size a value is dropped on the pool: freeing what hangs off it takes time too.
const LARGE: usize = 64 << 10;

/// Up to how many bytes work is done in place, and whether it is to be measured.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    pub(super) measured: Option<Job>,
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
        // Two for each worker, and as many again for what is coded in place.
        let (pace, scratch) = (Pace::new(options.inline_budget), Scratch::new(2 * workers + 2));
        let (counters, runtime) = (Apart::<Counters>::default(), runtime.clone());
        #[cfg(feature = "zstd")]
        let dictionaries =
            Arc::new(super::Dictionaries::new(options.max_dictionaries, &options.dictionaries));
        Ok(Arc::new(Self {
            options,
            pool,
            counters,
            work,
            pace,
            scratch,
            runtime,
            #[cfg(feature = "zstd")]
            dictionaries,
        }))
    }

    /// Whether what `backend` encodes with can be read again; to be asked once per tier.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the format or compressor that is not registered, or stands under another's id.
    pub fn accepts(&self, format: &dyn Format, compressor: &dyn Compressor) -> Result<()> {
        let (id, name) = (format.id(), format.name());
        let mut own = self.options.formats.iter().map(|format| &**format);
        if !own.any(|known| (known.id(), known.name()) == (id, name))
            && built_in_format(id).is_none_or(|known| known.name() != name)
        {
            return Err(unregistered("format", id, name));
        }
        let (id, name) = (compressor.id(), compressor.name());
        let known = self.compressor(id, compressor.dictionary());
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
        self.encode_counted(value, ty, format, compressor, &self.counters.inline, None)
    }

    /// Decodes a payload here and now, with the format and compressor that its header names.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the bytes are damaged, too large, of an unknown format or not of the type;
    /// [`ErrorKind::Panicked`] if the type, format or compressor panics on them.
    pub fn decode_now(&self, header: &Header, payload: &Raw, ty: &dyn ValueType) -> Result<Object> {
        self.decode_counted(header, payload, ty, &self.counters.inline, None)
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
        let (encoded, _) = self.encode_copies(value, ty, backend, 0).await?;
        Ok(encoded)
    }

    /// As [`encode`](Self::encode), with `copies` of it, made where it is.
    pub(crate) async fn encode_copies(
        self: &Arc<Self>,
        value: Object,
        ty: Arc<dyn ValueType>,
        backend: Arc<dyn Backend>,
        copies: usize,
    ) -> Result<(Encoded, Vec<Encoded>)> {
        let copied = move |encoded: Encoded| {
            let copies = vec![encoded.clone(); copies];
            (encoded, copies)
        };
        let limit = self.encode_limit(backend.value_format(), backend.compressor());
        if let Some(measured) = in_place(&value, &*ty, limit) {
            let (format, compressor, place) =
                (backend.value_format(), backend.compressor(), &self.counters.inline);
            return self.encode_counted(&value, &*ty, format, compressor, place, measured).map(copied);
        }
        let this = Arc::clone(self);
        let job = move || {
            let (format, compressor, place) =
                (backend.value_format(), backend.compressor(), &this.counters.pooled);
            this.encode_counted(&value, &*ty, format, compressor, place, limit.measured).map(copied)
        };
        self.pool.run(job).await?
    }

    /// Encodes `value` as `backend` wants it, if it is small enough to be encoded in place.
    pub(crate) fn encode_at_once(
        &self,
        value: &Object,
        ty: &dyn ValueType,
        backend: &dyn Backend,
    ) -> Option<Result<Encoded>> {
        let (format, compressor) = (backend.value_format(), backend.compressor());
        let limit = self.encode_limit(format, compressor);
        let measured = in_place(value, ty, limit)?;
        Some(self.encode_counted(value, ty, format, compressor, &self.counters.inline, measured))
    }

    /// What `value` weighs in memory, in bytes, if that can be counted in place.
    pub(crate) fn weigh_at_once(&self, value: &Object, ty: &dyn ValueType) -> Option<u32> {
        let small = !exceeds(value, ty, self.options.inline_encode.unwrap_or(FIRST));
        small.then(|| contained(|| Ok(ty.weigh(value))).ok()).flatten()
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
        if let Some(decoded) = self.decode_inline(&header, &payload, &*ty) {
            return decoded;
        }
        let limit = self.decode_limit(&header);
        let this = Arc::clone(self);
        let job = move || this.decode_counted(&header, &payload, &*ty, &this.counters.pooled, limit.measured);
        self.pool.run(job).await?
    }

    /// Decodes a payload in place if it is small, and needs no dictionary that might have to be loaded.
    pub(crate) fn decode_if_small(
        &self,
        header: &Header,
        payload: &Raw,
        ty: &dyn ValueType,
    ) -> Option<Result<Object>> {
        if header.dictionary == 0 { self.decode_inline(header, payload, ty) } else { None }
    }

    fn decode_inline(&self, header: &Header, payload: &Raw, ty: &dyn ValueType) -> Option<Result<Object>> {
        let limit = self.decode_limit(header);
        let size = header.plain_len.max(payload.len());
        let measured = limit.measured.filter(|_| size >= SMALL);
        let decode = || self.decode_counted(header, payload, ty, &self.counters.inline, measured);
        (size <= limit.bytes).then(decode)
    }

    fn decode_limit(&self, header: &Header) -> Limit {
        let job = Job { way: Way::Decode, format: header.format, compressor: header.compressor, level: 0 };
        self.limit(job, self.options.inline_decode, FIRST)
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
        if !exceeds(&value, &*ty, self.options.inline_encode.unwrap_or(FIRST)) {
            return contained(|| ty.check(&value, backend.value_format()));
        }
        self.pool.run(move || ty.check(&value, backend.value_format())).await?
    }

    /// What `value` weighs in memory, in bytes: counted in place if it is small, else on the pool.
    ///
    /// # Errors
    /// [`ErrorKind::Panicked`] if the application's weigher panics, [`ErrorKind::Overloaded`] if the pool is full.
    pub async fn weigh(self: &Arc<Self>, value: Object, ty: Arc<dyn ValueType>) -> Result<u32> {
        if !exceeds(&value, &*ty, self.options.inline_encode.unwrap_or(FIRST)) {
            return contained(|| Ok(ty.weigh(&value)));
        }
        self.pool.run(move || ty.weigh(&value)).await
    }

    /// Drops a value of `plain_len` encoded bytes: on the pool if it is large and this is the last of it. Waits for
    /// nothing, and drops it here if the pool is full.
    pub(crate) fn discard(&self, value: Object, plain_len: usize) {
        if plain_len > LARGE && Arc::strong_count(&value) == 1 {
            self.pool.run_detached(move || drop(value));
        }
    }

    /// What was measured of each format and compressor that was used so far.
    pub fn rates(&self) -> Vec<CodecRate> {
        self.pace.rates()
    }

    /// The counters so far.
    pub fn stats(&self) -> CodecStats {
        #[cfg(feature = "zstd")]
        let (dictionaries, dictionaries_loaded, dictionaries_unknown) = self.dictionaries.count();
        #[cfg(not(feature = "zstd"))]
        let (dictionaries, dictionaries_loaded, dictionaries_unknown) = (0, 0, 0);
        CodecStats {
            dictionaries,
            dictionaries_loaded,
            dictionaries_unknown,
            rejected: self.pool.rejected(),
            running: self.pool.running(),
            waiting: self.pool.waiting(),
            ..self.counters.snapshot()
        }
    }

    /// Whether the application has registered the compressor of an entry, dictionary and all.
    #[cfg(feature = "zstd")]
    pub(crate) fn is_registered(&self, header: &Header) -> bool {
        let mut own = self.options.compressors.iter();
        own.any(|own| (own.id(), own.dictionary()) == (header.compressor, header.dictionary))
    }

    #[cfg(feature = "zstd")]
    pub(crate) fn dictionaries(&self) -> &Arc<super::Dictionaries> {
        &self.dictionaries
    }

    /// Runs work of the engine's own on the pool.
    ///
    /// # Errors
    /// As [`CodecPool::run`].
    #[cfg(feature = "zstd")]
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.pool.run(job).await
    }

    /// The limits in force.
    pub fn options(&self) -> &CodecOptions {
        &self.options
    }

    fn encode_limit(&self, format: &dyn Format, compressor: &dyn Compressor) -> Limit {
        let options = &self.options;
        let (fixed, first) = match compressor.id() {
            0 => (options.inline_encode, FIRST),
            _ => (options.inline_compress, FIRST_COMPRESS),
        };
        let level = i8::try_from(compressor.level()).unwrap_or(i8::MAX);
        let job = Job { way: Way::Encode, format: format.id(), compressor: compressor.id(), level };
        let mut limit = self.limit(job, fixed, first);
        limit.bytes = limit.bytes.min(options.inline_encode.unwrap_or(usize::MAX));
        limit
    }

    /// The limit that is `fixed`, else the measured one, which begins at `first`.
    pub(super) fn limit(&self, job: Job, fixed: Option<usize>, first: usize) -> Limit {
        match fixed {
            Some(bytes) => Limit { bytes, measured: None },
            None => Limit { bytes: self.pace.limit(job, first), measured: Some(job) },
        }
    }

    /// Runs `work`, whose result says how many plain bytes it was about, and measures it if it succeeds: hostile bytes
    /// tell nothing.
    pub(super) fn measured<T>(
        &self,
        job: Option<Job>,
        work: impl FnOnce() -> Result<T>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Result<T> {
        let Some(job) = job else { return work() };
        let began = self.runtime.now();
        let output = work()?;
        self.pace.note(job, bytes(&output), began, self.runtime.now());
        Ok(output)
    }

    #[cfg(feature = "rkyv_format")]
    pub(super) fn pool(&self) -> &Arc<CodecPool> {
        &self.pool
    }

    #[cfg(feature = "rkyv_format")]
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn tools(&self) -> Tools<'_> {
        let (max_value, work) = (self.options.max_value, self.work.as_ref());
        Tools { max_value, work, scratch: &self.scratch }
    }

    fn encode_counted(
        &self,
        value: &Object,
        ty: &dyn ValueType,
        format: &dyn Format,
        compressor: &dyn Compressor,
        place: &Direction,
        measured: Option<Job>,
    ) -> Result<Encoded> {
        add(&place.encode, 1);
        let encode = || contained(|| self.encode_value(value, ty, format, compressor));
        let encode = || timed(self.work.as_ref(), Work::Encode, encode);
        let result = self.measured(measured, encode, Encoded::plain_len);
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
        let write = |out: &mut Vec<u8>| ty.encode(value, format, out);
        #[cfg(feature = "zstd")]
        if (compressor.id(), compressor.dictionary()) == (super::ZstdCompressor::DEFAULT.id(), 0)
            && let Some(dictionary) = ty.dictionary()
        {
            return coding::encode(
                write,
                ty.type_name(),
                format,
                &dictionary.compressor(compressor),
                self.tools(),
            );
        }
        coding::encode(write, ty.type_name(), format, compressor, self.tools())
    }

    fn decode_counted(
        &self,
        header: &Header,
        payload: &Raw,
        ty: &dyn ValueType,
        place: &Direction,
        measured: Option<Job>,
    ) -> Result<Object> {
        add(&place.decode, 1);
        add(&self.counters.bytes.decode, payload.len());
        let decode = || contained(|| self.decode_value(header, payload, ty));
        let decode = || timed(self.work.as_ref(), Work::Decode, decode);
        let result = self.measured(measured, decode, |_| header.plain_len);
        if result.is_err() {
            add(&self.counters.failures.decode, 1);
        }
        result
    }

    fn decode_value(&self, header: &Header, payload: &Raw, ty: &dyn ValueType) -> Result<Object> {
        let read = |bytes: &[u8], format: &dyn Format| ty.decode(bytes, format);
        coding::decode(header, payload, ty.of_type(), self, self.tools(), read)
    }
}

impl Known for Codecs {
    fn format(&self, id: u8, ty: TypeId) -> Option<&dyn Format> {
        let with_id = || self.options.formats.iter().map(|format| &**format).filter(|known| known.id() == id);
        let handles = |format: &&dyn Format| format.typed().is_none_or(|typed| typed.handles(ty));
        // One that does not handle the type says so better than nobody does.
        with_id()
            .find(handles)
            .or_else(|| with_id().next())
            .or_else(|| built_in_format(id).map(|known| known as _))
    }

    fn compressor(&self, id: u8, dictionary: u32) -> Option<AnyCompressor<'_>> {
        let mut own = self.options.compressors.iter().map(|compressor| &**compressor);
        if let Some(own) = own.find(|own| (own.id(), own.dictionary()) == (id, dictionary)) {
            return Some(AnyCompressor::Known(own));
        }
        if dictionary == 0 {
            return built_in_compressor(id).map(AnyCompressor::Known);
        }
        #[cfg(feature = "zstd")]
        if id == super::ZstdCompressor::DEFAULT.id() {
            let known = self.dictionaries.get(dictionary)?;
            return Some(AnyCompressor::Made(super::ZstdCompressor::DEFAULT.with_dictionary(&known)));
        }
        None
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

/// Whether the value is encoded in place, and how that is measured.
fn in_place(value: &Object, ty: &dyn ValueType, limit: Limit) -> Option<Option<Job>> {
    if !exceeds(value, ty, limit.bytes.min(SMALL)) {
        return Some(None);
    }
    (limit.bytes > SMALL && !exceeds(value, ty, limit.bytes)).then_some(limit.measured)
}

/// Whether the value is over `limit`. One that cannot be measured without panicking counts as over: its panic is
/// reported where it is encoded.
fn exceeds(value: &Object, ty: &dyn ValueType, limit: usize) -> bool {
    catch_unwind(AssertUnwindSafe(|| ty.exceeds(value, limit))).unwrap_or(true)
}

fn unregistered(what: &str, id: u8, name: &str) -> Error {
    let message =
        format!("{what} `{name}` with id {id} is not registered with the cache, so nothing could read it");
    Error::new(ErrorKind::Config, message)
}
