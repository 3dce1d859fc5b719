//! Formats: how a value becomes bytes.

use std::any::{Any, TypeId};
use std::marker::PhantomData;

use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _};

use super::guard::{Guard, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::value::Object;

/// What reads the value out of a deserializer; see [`Format::decode`].
pub type Visit<'a> =
    &'a mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>;

/// A serialization format, usable for every `serde` type through one object.
pub trait Format: Send + Sync + 'static {
    /// Stands in each frame, so it must never change its meaning. 0-127 are the engine's, 128-255 are yours.
    fn id(&self) -> u8;

    /// For messages and `inspect()`.
    fn name(&self) -> &'static str;

    /// The payload starts at a multiple of this many bytes within its frame: 1 (default, no padding), 2, … 64. For
    /// formats that are read in place. Whether the frame itself is aligned in memory is up to the store.
    fn alignment(&self) -> usize {
        1
    }

    /// Appends the encoded value to `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if the value cannot be expressed in the format.
    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()>;

    /// Calls `visit` once with a deserializer over `bytes`. All of `bytes` must be consumed.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if `bytes` are not a value of the format.
    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()>;

    /// For formats that do not go through serde: encodes and decodes values by their type. Where this is there, the
    /// engine uses it instead of [`encode`](Self::encode) and [`decode`](Self::decode). Default: none.
    fn typed(&self) -> Option<&dyn TypedFormat> {
        None
    }
}

/// The part of a [`Format`] that knows the types it works on, without serde. See
/// [`RkyvFormat`](https://docs.rs/tierkeep/latest/tierkeep/codec/struct.RkyvFormat.html).
pub trait TypedFormat: Send + Sync {
    /// Whether values of this type can be encoded and decoded.
    fn handles(&self, ty: TypeId) -> bool;

    /// Appends the encoded value to `out`. Only called for types that it [`handles`](Self::handles).
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if the value cannot be expressed in the format.
    fn encode(&self, value: &(dyn Any + Send + Sync), out: &mut Vec<u8>) -> Result<()>;

    /// Reads a value of type `ty`. All of `bytes` must be consumed. Only called for types that it
    /// [`handles`](Self::handles).
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if `bytes` are not such a value.
    fn decode(&self, ty: TypeId, bytes: &[u8]) -> Result<Object>;
}

/// The engine's format with `id`, of those that need no telling what they are for.
pub(crate) fn built_in_format(id: u8) -> Option<&'static dyn Format> {
    Some(match id {
        1 => &PostcardFormat,
        2 => &JsonFormat,
        #[cfg(feature = "bincode")]
        3 => &super::BincodeFormat,
        #[cfg(feature = "ron")]
        4 => &super::RonFormat,
        _ => return None,
    })
}

/// [postcard](https://postcard.jamesmunns.com/wire-format): compact, fast, specified. The default. Not
/// self-describing: types that need to look ahead (`serde(untagged)`, `flatten`) want [`JsonFormat`]. Values nested
/// more than 128 deep are not read.
#[derive(Debug, Clone, Copy, Default)]
pub struct PostcardFormat;

impl Format for PostcardFormat {
    fn id(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        "postcard"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        Self::write(&value, out)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        Self::read_seed(bytes, Visiting(visit))
    }
}

impl PostcardFormat {
    /// As [`encode`](Format::encode), for a type that is known: several times as fast.
    pub(super) fn write(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) -> Result<()> {
        // Straight into the buffer that the frame will be built in: no copy afterwards.
        postcard::serialize_with_flavor(value, Append(out)).map_err(encode_error)
    }

    /// As [`decode`](Format::decode), for a type that is known.
    pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        Self::read_seed(bytes, PhantomData)
    }

    fn read_seed<'a, S: DeserializeSeed<'a>>(bytes: &'a [u8], seed: S) -> Result<S::Value> {
        let mut deserializer = postcard::Deserializer::from_bytes(bytes);
        let limits = Limits::new(bytes.len());
        let value = seed.deserialize(Guard::new(&mut deserializer, &limits)).map_err(|error| {
            match limits.exceeded() {
                // postcard's errors keep no text.
                Some(limit) => Error::new(ErrorKind::Decode, limit),
                None => decode_error(error),
            }
        })?;
        match deserializer.finalize() {
            Ok([]) => Ok(value),
            Ok(rest) => Err(trailing(rest.len())),
            Err(error) => Err(decode_error(error)),
        }
    }
}

/// Hands the deserializer over.
struct Visiting<'a>(Visit<'a>);

impl<'de> DeserializeSeed<'de> for Visiting<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        (self.0)(&mut <dyn erased_serde::Deserializer<'_>>::erase(deserializer)).map_err(D::Error::custom)
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// JSON: readable in the store, self-describing, larger and slower. Byte strings become arrays of numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonFormat;

impl Format for JsonFormat {
    fn id(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        "json"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(out, &value).map_err(encode_error)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        visit(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut deserializer)).map_err(decode_error)?;
        deserializer.end().map_err(decode_error)
    }
}

pub(super) fn encode_error(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "the value cannot be expressed in this format").with_source(source)
}

pub(super) fn decode_error(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Decode, "the bytes are not a value of this type").with_source(source)
}

pub(super) fn trailing(bytes: usize) -> Error {
    Error::new(ErrorKind::Decode, format!("{bytes} bytes are left over after the value"))
}
