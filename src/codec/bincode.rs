//! Bincode, for those who come from it.

use serde::de::{DeserializeSeed, Deserializer, Error as _};

use super::format::{Format, Visit, decode_error, encode_error, trailing};
use super::guard::{Guard, Limits};
use crate::error::{Error, ErrorKind, Result};

/// [bincode](https://docs.rs/bincode) 2, standard configuration: what the seed of this engine used by default. Its last
/// release is 2.0.1 and it is no longer maintained, so it is a feature (`bincode`); [`PostcardFormat`] is its maintained
/// equivalent. Like it, not self-describing, and values nested more than 128 deep are not read.
///
/// [`PostcardFormat`]: super::PostcardFormat
#[derive(Debug, Clone, Copy, Default)]
pub struct BincodeFormat;

impl Format for BincodeFormat {
    fn id(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        "bincode"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        let written = ::bincode::serde::encode_into_std_write(value, out, ::bincode::config::standard());
        written.map(drop).map_err(encode_error)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        let limits = Limits::new(bytes.len());
        let seed = Seed { visit, limits: &limits };
        let read = ::bincode::serde::seed_decode_from_slice(seed, bytes, ::bincode::config::standard());
        let ((), read) = read.map_err(|error| match limits.exceeded() {
            Some(limit) => Error::new(ErrorKind::Decode, limit),
            None => decode_error(error),
        })?;
        if read == bytes.len() { Ok(()) } else { Err(trailing(bytes.len() - read)) }
    }
}

/// Hands the deserializer over, under limits: bincode itself follows any length that it reads.
struct Seed<'a> {
    visit: Visit<'a>,
    limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let guard = Guard::new(deserializer, self.limits);
        (self.visit)(&mut <dyn erased_serde::Deserializer<'_>>::erase(guard)).map_err(D::Error::custom)
    }
}
