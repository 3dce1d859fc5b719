//! rkyv: archives instead of a serde encoding, for the types that ask for it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ::rkyv::api::access_with_context;
use ::rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use ::rkyv::bytecheck::CheckBytes;
use ::rkyv::rancor::Error as RkyvError;
use ::rkyv::ser::allocator::ArenaHandle;
use ::rkyv::util::AlignedVec;
use ::rkyv::validation::Validator;
use ::rkyv::validation::archive::ArchiveValidator;
use ::rkyv::validation::shared::SharedValidator;
use ::rkyv::{Archive, Deserialize, Serialize};

use super::format::{Format, TypedFormat, Visit, decode_error, encode_error};
use super::guard::MAX_DEPTH;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Object;

/// What `AlignedVec` gives, and so what archives may ask for.
pub(super) const ALIGNMENT: usize = 16;

/// [rkyv](https://docs.rs/rkyv) 0.8 (feature `rkyv_format`): the fastest to encode and decode.
///
/// It works on the types that are registered on it and demands nothing of others: turning the feature on changes no
/// bound anywhere. A type that is not registered cannot be stored in this format ([`ErrorKind::Encode`], with the line
/// to add). Archives are validated before they are read, so hostile bytes are an error; values nested more than 128
/// pointers deep are not read. rkyv's own features for byte order and pointer width are the application's to choose,
/// and part of the format: entries written with others do not validate.
///
/// [`Region::read_archived`](crate::Region::read_archived) reads an archive where it is, without making a `T` of it.
///
/// ```
/// use rkyv::{Archive, Deserialize, Serialize};
/// use tierkeep::codec::{RkyvFormat, value_type};
/// use tierkeep::Object;
///
/// #[derive(Debug, PartialEq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// let format = RkyvFormat::new().register::<User>().register::<Vec<u64>>();
/// let (ty, user) = (value_type::<User>(), User { name: "Ada".into() });
/// let mut bytes = Vec::new();
/// ty.encode(&(std::sync::Arc::new(user) as Object), &format, &mut bytes)?;
/// assert_eq!(ty.decode(&bytes, &format)?.downcast_ref(), Some(&User { name: "Ada".into() }));
/// # Ok::<(), tierkeep::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct RkyvFormat {
    types: HashMap<TypeId, Codec>,
}

/// The functions of one type, erased.
#[derive(Clone, Copy)]
struct Codec {
    name: &'static str,
    encode: fn(&dyn Any, &mut Vec<u8>) -> Result<()>,
    decode: fn(&[u8]) -> Result<Object>,
}

impl RkyvFormat {
    /// Without any type.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `T` storable in this format. Registering it again changes nothing.
    #[must_use]
    pub fn register<T>(mut self) -> Self
    where
        T: Archive + Send + Sync + 'static,
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
        T::Archived:
            for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
    {
        let codec = Codec { name: std::any::type_name::<T>(), encode: encode::<T>, decode: decode::<T> };
        self.types.insert(TypeId::of::<T>(), codec);
        self
    }
}

impl Format for RkyvFormat {
    fn id(&self) -> u8 {
        super::options::RKYV
    }

    fn name(&self) -> &'static str {
        "rkyv"
    }

    fn alignment(&self) -> usize {
        ALIGNMENT
    }

    fn encode(&self, _: &dyn erased_serde::Serialize, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::new(ErrorKind::Encode, NEEDS_TYPE))
    }

    fn decode(&self, _: &[u8], _: Visit<'_>) -> Result<()> {
        Err(Error::new(ErrorKind::Decode, NEEDS_TYPE))
    }

    fn typed(&self) -> Option<&dyn TypedFormat> {
        Some(self)
    }
}

const NEEDS_TYPE: &str = "rkyv has no serde encoding; it is reached through `Format::typed`";

impl TypedFormat for RkyvFormat {
    fn handles(&self, ty: TypeId) -> bool {
        self.types.contains_key(&ty)
    }

    fn encode(&self, value: &(dyn Any + Send + Sync), out: &mut Vec<u8>) -> Result<()> {
        (self.codec(value.type_id(), ErrorKind::Encode)?.encode)(value, out)
    }

    fn decode(&self, ty: TypeId, bytes: &[u8]) -> Result<Object> {
        (self.codec(ty, ErrorKind::Decode)?.decode)(bytes)
    }
}

impl RkyvFormat {
    fn codec(&self, ty: TypeId, kind: ErrorKind) -> Result<&Codec> {
        self.types.get(&ty).ok_or_else(|| Error::new(kind, "the type is not registered on this `RkyvFormat`"))
    }
}

impl fmt::Debug for RkyvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types.values().map(|codec| codec.name)).finish()
    }
}

fn encode<T>(value: &dyn Any, out: &mut Vec<u8>) -> Result<()>
where
    T: 'static + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    let Some(value) = value.downcast_ref::<T>() else {
        return Err(Error::new(ErrorKind::TypeMismatch, "the value is not of the type it was announced as"));
    };
    // Archives are laid out from the start of their own buffer.
    let archive = ::rkyv::to_bytes::<RkyvError>(value).map_err(encode_error)?;
    out.extend_from_slice(&archive);
    Ok(())
}

fn decode<T>(bytes: &[u8]) -> Result<Object>
where
    T: Archive + Send + Sync + 'static,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    // The frame aligns its payload, but a store may hand the frame back at any address.
    if (bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
        return decode_aligned::<T>(bytes);
    }
    let mut aligned = AlignedVec::<ALIGNMENT>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    decode_aligned::<T>(&aligned)
}

fn decode_aligned<T>(bytes: &[u8]) -> Result<Object>
where
    T: Archive + Send + Sync + 'static,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    let archived = access::<T>(bytes)?;
    let value: T = ::rkyv::deserialize::<T, RkyvError>(archived).map_err(decode_error)?;
    Ok(Arc::new(value))
}

/// The validated archive in `bytes`, which start at a multiple of [`ALIGNMENT`].
pub(crate) fn access<T>(bytes: &[u8]) -> Result<&T::Archived>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>,
{
    // With rkyv's own `access` a chain of boxes in hostile bytes would end the stack.
    let archive = ArchiveValidator::with_max_depth(bytes, NonZeroUsize::new(MAX_DEPTH));
    let mut validator = Validator::new(archive, SharedValidator::new());
    access_with_context::<T::Archived, _, RkyvError>(bytes, &mut validator).map_err(decode_error)
}
