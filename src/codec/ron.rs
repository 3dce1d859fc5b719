//! RON, for values that people read.

use ::ron::Options;
use serde::de::{DeserializeSeed, Deserializer, Error as _};

use super::format::{Format, Visit, decode_error, encode_error};
use crate::error::Result;

/// [RON](https://docs.rs/ron): as readable as JSON, but tells structs, tuples, options and characters apart and keeps
/// byte strings short (feature `ron`). The slowest. Values nested more than 128 deep are neither written nor read.
#[derive(Debug, Clone, Copy, Default)]
pub struct RonFormat;

impl Format for RonFormat {
    fn id(&self) -> u8 {
        4
    }

    fn name(&self) -> &'static str {
        "ron"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        Options::default().to_io_writer(out, value).map_err(encode_error)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        Options::default().from_bytes_seed(bytes, Seed(visit)).map_err(decode_error)
    }
}

struct Seed<'a>(Visit<'a>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        (self.0)(&mut <dyn erased_serde::Deserializer<'_>>::erase(deserializer)).map_err(D::Error::custom)
    }
}
