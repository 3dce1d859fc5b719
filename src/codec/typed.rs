//! The codec of one value type, with the type erased: what lets the engine below regions be compiled once.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::format::Format;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Object;

/// Encodes, decodes and weighs values of one type behind `dyn Any`.
pub trait ValueType: Send + Sync + 'static {
    /// Which type.
    fn type_id(&self) -> TypeId;

    /// The type's name, for messages.
    fn type_name(&self) -> &'static str;

    /// Appends the encoded value to `out`.
    fn encode(&self, value: &Object, format: &dyn Format, out: &mut Vec<u8>) -> Result<()>;

    /// Reads a value.
    fn decode(&self, bytes: &[u8], format: &dyn Format) -> Result<Object>;

    /// The value's weight in bytes, for tiers bounded by bytes.
    fn weigh(&self, value: &Object) -> u32;
}

/// How many bytes a value takes in memory, stated by the application.
pub(crate) type Weigher<T> = Arc<dyn Fn(&T) -> usize + Send + Sync>;

pub(crate) struct Typed<T> {
    weigher: Option<Weigher<T>>,
    value: PhantomData<fn() -> T>,
}

impl<T> Typed<T> {
    pub(crate) fn new(weigher: Option<Weigher<T>>) -> Self {
        Self { weigher, value: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> ValueType for Typed<T> {
    fn type_id(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn encode(&self, value: &Object, format: &dyn Format, out: &mut Vec<u8>) -> Result<()> {
        format.encode(self.downcast(value)?, out)
    }

    fn decode(&self, bytes: &[u8], format: &dyn Format) -> Result<Object> {
        let mut value: Option<T> = None;
        format.decode(bytes, &mut |deserializer| {
            value = Some(erased_serde::deserialize(deserializer)?);
            Ok(())
        })?;
        // A format that never calls back is a broken one.
        let value = value.ok_or_else(|| Error::new(ErrorKind::Decode, "the format produced no value"))?;
        Ok(Arc::new(value))
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

impl fmt::Debug for dyn ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueType({})", self.type_name())
    }
}
