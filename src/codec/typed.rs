//! The codec of one value type, with the type erased: what lets the engine below regions be compiled once.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::format::{Format, PostcardFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::value::Object;

/// Encodes, decodes and weighs values of one type behind `dyn Any`.
pub trait ValueType: Send + Sync + 'static {
    /// Which type.
    fn of_type(&self) -> TypeId;

    /// The type's name, for messages.
    fn type_name(&self) -> &'static str;

    /// Appends the encoded value to `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if the format cannot express it, [`ErrorKind::TypeMismatch`] if it is of another type.
    fn encode(&self, value: &Object, format: &dyn Format, out: &mut Vec<u8>) -> Result<()>;

    /// Whether the value would take more than `limit` bytes in postcard, found out with a bounded effort: the count
    /// ends at `limit`. True if postcard cannot express it. Allocates nothing.
    fn exceeds(&self, value: &Object, limit: usize) -> bool;

    /// Whether `format` gives the value back: encodes it, decodes that, and encodes the result again.
    ///
    /// Types need no `PartialEq` for it: the two encodings are compared, as collections of bytes regardless of order,
    /// since a hash map writes its entries in another order each time.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if it does not, with what to do about it.
    fn check(&self, value: &Object, format: &dyn Format) -> Result<()> {
        let mut first = Vec::new();
        self.encode(value, format, &mut first)?;
        let does_not = |error: Error| does_not_read_back(self.type_name(), format.name()).with_source(error);
        let read = self.decode(&first, format).map_err(does_not)?;
        let mut second = Vec::new();
        if format.typed().is_some() {
            // Archives hold offsets, which depend on the order of a hash map: serde's view of both is compared.
            let plain = PostcardFormat;
            first.clear();
            if self.encode(value, &plain, &mut first).is_err() {
                return Ok(());
            }
            self.encode(&read, &plain, &mut second).map_err(does_not)?;
        } else {
            self.encode(&read, format, &mut second).map_err(does_not)?;
        }
        if first == second || census(&first) == census(&second) {
            Ok(())
        } else {
            Err(does_not_read_back(self.type_name(), format.name()))
        }
    }

    /// Reads a value. All of `bytes` must be consumed.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if they are not a value of the type.
    fn decode(&self, bytes: &[u8], format: &dyn Format) -> Result<Object>;

    /// The value's weight in bytes, for tiers bounded by bytes.
    fn weigh(&self, value: &Object) -> u32;

    /// The dictionary that values are compressed with where a tier's compressor is plain
    /// [`ZstdCompressor`](super::ZstdCompressor). Default: none.
    #[cfg(feature = "zstd")]
    fn dictionary(&self) -> Option<&Arc<super::RegionDictionary>> {
        None
    }
}

/// How many bytes a value takes in memory, stated by the application.
pub(crate) type Weigher<T> = Arc<dyn Fn(&T) -> usize + Send + Sync>;

pub(crate) struct Typed<T> {
    weigher: Option<Weigher<T>>,
    #[cfg(feature = "zstd")]
    dictionary: Option<Arc<super::RegionDictionary>>,
    value: PhantomData<fn() -> T>,
}

/// The codec of `T`, weighing values by their encoded size.
pub fn value_type<T: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Arc<dyn ValueType> {
    Arc::new(Typed::<T>::new(None))
}

impl<T> Typed<T> {
    pub(crate) fn new(weigher: Option<Weigher<T>>) -> Self {
        Self {
            weigher,
            #[cfg(feature = "zstd")]
            dictionary: None,
            value: PhantomData,
        }
    }

    #[cfg(feature = "zstd")]
    pub(crate) fn with_dictionary(self, dictionary: Option<Arc<super::RegionDictionary>>) -> Self {
        Self { dictionary, ..self }
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> ValueType for Typed<T> {
    fn of_type(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn encode(&self, value: &Object, format: &dyn Format, out: &mut Vec<u8>) -> Result<()> {
        self.write(self.downcast(value)?, format, out)
    }

    fn exceeds(&self, value: &Object, limit: usize) -> bool {
        // A value of another type fails at once, wherever it is encoded.
        self.downcast(value)
            .is_ok_and(|value| postcard::serialize_with_flavor(value, Budget { left: limit }).is_err())
    }

    fn decode(&self, bytes: &[u8], format: &dyn Format) -> Result<Object> {
        match format.typed() {
            Some(typed) if typed.handles(TypeId::of::<T>()) => typed.decode(TypeId::of::<T>(), bytes),
            Some(_) => Err(unhandled::<T>(ErrorKind::Decode, format)),
            None if format.id() == PostcardFormat.id() => Ok(Arc::new(PostcardFormat::read::<T>(bytes)?)),
            None => Ok(Arc::new(self.read(bytes, format)?)),
        }
    }

    fn weigh(&self, value: &Object) -> u32 {
        let Ok(value) = self.downcast(value) else { return 0 };
        let bytes = match &self.weigher {
            Some(weigher) => weigher(value),
            // The encoded size stands for what hangs off the value; the struct itself comes on top.
            None => size_of::<T>() + postcard::experimental::serialized_size(value).unwrap_or(0),
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    #[cfg(feature = "zstd")]
    fn dictionary(&self) -> Option<&Arc<super::RegionDictionary>> {
        self.dictionary.as_ref()
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Typed<T> {
    /// Appends the encoded value to `out`.
    pub(crate) fn write(&self, value: &T, format: &dyn Format, out: &mut Vec<u8>) -> Result<()> {
        match format.typed() {
            Some(typed) if typed.handles(TypeId::of::<T>()) => typed.encode(value, out),
            Some(_) => Err(unhandled::<T>(ErrorKind::Encode, format)),
            // The engine's id: no detour over an object for what most tiers use.
            None if format.id() == PostcardFormat.id() => PostcardFormat::write(value, out),
            None => format.encode(value, out),
        }
    }

    /// Reads a value through serde.
    fn read(&self, bytes: &[u8], format: &dyn Format) -> Result<T> {
        let mut value: Option<T> = None;
        format.decode(bytes, &mut |deserializer| {
            value = Some(erased_serde::deserialize(deserializer)?);
            Ok(())
        })?;
        // A format that never calls back is a broken one.
        value.ok_or_else(|| Error::new(ErrorKind::Decode, "the format produced no value"))
    }
}

impl<T: Any> Typed<T> {
    fn downcast<'a>(&self, value: &'a Object) -> Result<&'a T> {
        (**value).downcast_ref::<T>().ok_or_else(|| {
            Error::new(
                ErrorKind::TypeMismatch,
                format!("the value is not a `{}`", std::any::type_name::<T>()),
            )
        })
    }
}

/// Counts bytes down instead of writing them.
struct Budget {
    left: usize,
}

impl Flavor for Budget {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.left = self.left.checked_sub(data.len()).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn try_push(&mut self, _: u8) -> postcard::Result<()> {
        self.try_extend(&[0])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// How often each byte occurs.
fn census(bytes: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    counts
}

fn unhandled<T>(kind: ErrorKind, format: &dyn Format) -> Error {
    let (name, format) = (std::any::type_name::<T>(), format.name());
    let message = format!(
        "`{name}` is not registered with format `{format}`: add `.register::<{name}>()` where the format is made, or \
         give the tier another format"
    );
    Error::new(kind, message)
}

fn does_not_read_back(type_name: &str, format: &str) -> Error {
    let message = format!(
        "`{type_name}` does not read back what it writes in format `{format}`. `serde(untagged)`, `flatten`, `tag` \
         and `skip_serializing_if` need a self-describing format: give the tier `JsonFormat`, or change the type"
    );
    Error::new(ErrorKind::Encode, message)
}

impl fmt::Debug for dyn ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueType({})", self.type_name())
    }
}
