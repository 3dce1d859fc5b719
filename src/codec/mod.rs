//! From values to bytes and back: formats, compressors, the frame around them, and the pool that runs them.
//!
//! A value is encoded by a [`Format`], perhaps shrunk by a [`Compressor`], and wrapped in a frame that says which
//! of them were used, so a tier's codec can be changed while old entries stay readable.
//!
//! [`Codecs`] is where it comes together: what is known, what is allowed, and whether work is done in place or on the
//! blocking pool. Below it, everything is a small object that can be used by itself:
//!
//! ```
//! use std::sync::Arc;
//! use tierkeep::Object;
//! use tierkeep::codec::{JsonFormat, PostcardFormat, value_type};
//!
//! let ty = value_type::<Vec<(u32, String)>>();
//! let value: Object = Arc::new(vec![(7_u32, "seven".to_owned())]);
//!
//! let mut json = Vec::new();
//! ty.encode(&value, &JsonFormat, &mut json)?;
//! assert_eq!(json, br#"[[7,"seven"]]"#);
//!
//! let mut compact = Vec::new();
//! ty.encode(&value, &PostcardFormat, &mut compact)?;
//! assert_eq!(compact, b"\x01\x07\x05seven");
//!
//! let back = ty.decode(&compact, &PostcardFormat)?;
//! assert_eq!(back.downcast_ref(), Some(&vec![(7_u32, "seven".to_owned())]));
//! # Ok::<(), tierkeep::Error>(())
//! ```
//!
//! # What it costs, and where it runs
//!
//! | work | where | what to tune |
//! |---|---|---|
//! | encoding, decoding, checksums, compression | in the caller's task as long as it is expected to stay within 30 µs, else on the blocking pool: measured for each format and compressor | [`CodecOptions::inline_budget`], or fixed limits beside it |
//! | as much of it at once as the pool has workers | the runtime's cores less one, so that the executor keeps a core | [`CodecOptions::workers`] |
//! | one value for several byte tiers | encoded once for all that agree in format, compressor, dictionary and level; tiers with another `ttl_cap` get a copy of the bytes | the tiers' formats |
//! | buffers | compression and unpacking pass through buffers that are kept, at most `2 × workers + 2` of 1 MiB at most; a stored frame takes no more memory than its bytes | |
//! | dropping a value of over 64 KiB that no tier of objects keeps | on the pool | |
//! | reading an archive without decoding it | validated where the tier's bytes are: `Region::read_archived` (feature `rkyv_format`) | align the store's bytes to 16: `archived_copies` in [`CodecStats`] counts those that were not |
//! | many small values that resemble each other | compressed with a dictionary that is trained on the blocking pool: `RegionBuilder::dictionary` (feature `zstd`) | `DictionaryOptions` |
//!
//! [`Cache::inspect`](crate::Cache::inspect) shows the measured rates, the counters and the dictionaries.

#[cfg(feature = "bincode")]
mod bincode;
mod codecs;
mod coding;
mod compressor;
#[cfg(feature = "zstd")]
mod dictionaries;
#[cfg(feature = "zstd")]
mod dictionary;
#[cfg(feature = "zstd")]
mod dictionary_options;
mod format;
pub mod frame;
mod guard;
mod options;
mod pace;
mod pool;
#[cfg(feature = "zstd")]
mod publishing;
#[cfg(feature = "rkyv_format")]
mod rkyv;
#[cfg(feature = "ron")]
mod ron;
mod scratch;
mod stats;
#[cfg(feature = "zstd")]
mod training;
mod typed;
mod varint;
#[cfg(feature = "rkyv_format")]
mod view;
mod work;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(feature = "bincode")]
pub use bincode::BincodeFormat;
pub use codecs::Codecs;
pub(crate) use coding::{AnyCompressor, Known, MAX_VALUE, Tools, contained, decode, encode};
#[cfg(feature = "gzip")]
pub use compressor::GzipCompressor;
pub(crate) use compressor::built_in_compressor;
pub use compressor::{Compressor, PassthroughCompressor};
#[cfg(feature = "zstd")]
pub(crate) use dictionaries::Dictionaries;
#[cfg(feature = "zstd")]
pub(crate) use dictionary::MAX_DICTIONARY;
#[cfg(feature = "zstd")]
pub use dictionary::{ZstdDictionary, ZstdDictionaryCompressor};
#[cfg(feature = "zstd")]
pub use dictionary_options::{DictionaryInspection, DictionaryOptions, DictionaryState};
pub(crate) use format::built_in_format;
pub use format::{Format, JsonFormat, PostcardFormat, TypedFormat, Visit};
pub use frame::{Encoded, Header};
pub use options::CodecOptions;
pub use pace::CodecRate;
pub use pool::CodecPool;
#[cfg(feature = "rkyv_format")]
pub use rkyv::RkyvFormat;
#[cfg(feature = "rkyv_format")]
pub(crate) use rkyv::access;
#[cfg(feature = "ron")]
pub use ron::RonFormat;
pub(crate) use scratch::Scratch;
pub use stats::CodecStats;
#[cfg(feature = "zstd")]
pub use training::RegionDictionary;
pub(crate) use typed::{Typed, Weigher};
pub use typed::{ValueType, value_type};
pub(crate) use varint::{Reader, put_varint};
pub(crate) use work::CodecWork;
#[cfg(feature = "zstd")]
pub use zstd::ZstdCompressor;
