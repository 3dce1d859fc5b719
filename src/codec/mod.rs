//! From values to bytes and back: formats, compressors, the frame around them, and the pool that runs them.
//!
//! A value is encoded by a [`Format`], perhaps shrunk by a [`Compressor`], and wrapped in a frame that says which
//! of them were used, so a tier's codec can be changed while old entries stay readable.

mod compressor;
mod format;
mod typed;

#[cfg(feature = "zstd")]
pub use compressor::ZstdCompressor;
pub use compressor::{Compressor, PassthroughCompressor};
pub use format::{Format, JsonFormat, PostcardFormat};
pub use typed::ValueType;
