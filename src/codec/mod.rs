//! From values to bytes and back: formats, compressors, the frame around them, and the pool that runs them.
//!
//! A value is encoded by a [`Format`], perhaps shrunk by a [`Compressor`], and wrapped in a frame that says which
//! of them were used, so a tier's codec can be changed while old entries stay readable.

mod codecs;
mod compressor;
mod format;
pub mod frame;
mod guard;
mod options;
mod pool;
mod stats;
mod typed;
mod varint;

pub use codecs::Codecs;
#[cfg(feature = "gzip")]
pub use compressor::GzipCompressor;
#[cfg(feature = "zstd")]
pub use compressor::ZstdCompressor;
pub use compressor::{Compressor, PassthroughCompressor};
pub use format::{Format, JsonFormat, PostcardFormat, Visit};
pub use frame::{Encoded, Header};
pub use options::CodecOptions;
pub use pool::CodecPool;
pub use stats::CodecStats;
pub use typed::{ValueType, value_type};
