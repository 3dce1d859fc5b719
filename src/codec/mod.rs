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

#[cfg(feature = "bincode")]
mod bincode;
mod codecs;
mod coding;
mod compressor;
mod format;
pub mod frame;
mod guard;
mod options;
mod pace;
mod pool;
#[cfg(feature = "rkyv_format")]
mod rkyv;
#[cfg(feature = "ron")]
mod ron;
mod scratch;
mod stats;
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
pub(crate) use coding::{Known, MAX_VALUE, Tools, contained, decode, encode};
#[cfg(feature = "gzip")]
pub use compressor::GzipCompressor;
pub(crate) use compressor::built_in_compressor;
pub use compressor::{Compressor, PassthroughCompressor};
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
pub(crate) use typed::{Typed, Weigher};
pub use typed::{ValueType, value_type};
pub(crate) use varint::{Reader, put_varint};
pub(crate) use work::CodecWork;
#[cfg(feature = "zstd")]
pub use zstd::ZstdCompressor;
