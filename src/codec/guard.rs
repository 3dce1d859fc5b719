//! Limits on what hostile bytes can make a deserializer do: nest until the stack ends, or yield elements without end.
//!
//! A format that does not spend a byte per element (postcard's `Vec<()>`) or per level would otherwise follow any
//! number that it reads. The guard stands around a format's deserializer, below the erased type, so it is compiled
//! once per format.
//!
//! It also keeps errors flat. Erased errors travel as text, and are wrapped once for each level of nesting; bincode
//! prints a wrapped text with its quotes escaped, so hostile bytes that fail 60 levels deep would otherwise take 2^60
//! bytes to say so.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How deep values may nest, each option, sequence, map, struct and variant counted. What takes more than this cannot
/// be cached in a guarded format.
pub(super) const MAX_DEPTH: usize = 128;

/// How many elements a value may have beyond one for each of its bytes.
const FREE_ELEMENTS: usize = 1 << 20;

/// What is left to use.
pub(super) struct Limits {
    depth: Cell<usize>,
    elements: Cell<usize>,
    exceeded: Cell<Option<&'static str>>,
    /// What failed, while a format passes its own error up one level.
    failure: Cell<Option<Flat>>,
}

impl Limits {
    /// For a value of `bytes` encoded bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            depth: Cell::new(MAX_DEPTH),
            elements: Cell::new(bytes.saturating_add(FREE_ELEMENTS)),
            exceeded: Cell::new(None),
            failure: Cell::new(None),
        }
    }

    /// Which limit ended the decoding, if one did.
    pub(super) fn exceeded(&self) -> Option<&'static str> {
        self.exceeded.get()
    }

    fn nested<T, E: Error>(&self, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let depth = self.depth.get();
        if depth == 0 {
            return Err(self.exceed("the value is nested too deeply"));
        }
        self.depth.set(depth - 1);
        let result = read();
        self.depth.set(depth);
        result
    }

    fn element<E: Error>(&self) -> Result<(), E> {
        match self.elements.get().checked_sub(1) {
            Some(left) => {
                self.elements.set(left);
                Ok(())
            }
            None => Err(self.exceed("the value has more elements than its bytes can hold")),
        }
    }

    /// Hands a failure to a format, which may print it as it likes: what comes out above is the same again.
    #[cold]
    fn down<E: Error>(&self, failure: Flat) -> E {
        self.failure.set(Some(failure));
        E::custom("the value could not be read")
    }

    /// Takes a failure from a format.
    #[cold]
    fn up<E: Error>(&self, error: E) -> Flat {
        self.failure.take().unwrap_or_else(|| Flat::custom(error))
    }

    #[cold]
    fn exceed<E: Error>(&self, limit: &'static str) -> E {
        self.exceeded.set(Some(limit));
        E::custom(limit)
    }
}

/// An error that is only its text, however often it is wrapped. One pointer: results pass through it for each value, and
/// a small one stays in registers.
#[derive(Debug)]
pub(super) struct Flat(Box<Text>);

#[derive(Debug)]
struct Text(String);

impl fmt::Display for Flat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.0)
    }
}

impl std::error::Error for Flat {}

impl Error for Flat {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(Box::new(Text(text.to_string())))
    }
}

/// A deserializer, visitor, seed or access under limits.
pub(super) struct Guard<'l, T> {
    inner: T,
    limits: &'l Limits,
}

impl<'l, T> Guard<'l, T> {
    pub(super) fn new(inner: T, limits: &'l Limits) -> Self {
        Self { inner, limits }
    }
}

macro_rules! deserialize {
    ($($method:ident($($arg:ident: $ty:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, Flat> {
            let Guard { inner, limits } = self;
        inner.$method($($arg,)* Guard::new(visitor, limits)).map_err(|error| limits.up(error))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guard<'_, D> {
    type Error = Flat;

    deserialize! {
        deserialize_any() deserialize_bool() deserialize_char() deserialize_unit() deserialize_option()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_str() deserialize_bytes() deserialize_identifier() deserialize_ignored_any()
        deserialize_seq() deserialize_map() deserialize_tuple(len: usize)
        deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    // A borrowed text is checked against what is there; to make an owned one, bincode allocates what is claimed.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flat> {
        let Guard { inner, limits } = self;
        inner.deserialize_str(Guard::new(visitor, limits)).map_err(|error| limits.up(error))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flat> {
        let Guard { inner, limits } = self;
        inner.deserialize_bytes(Guard::new(visitor, limits)).map_err(|error| limits.up(error))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($ty:ty))*) => {$(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool) visit_char(char) visit_f32(f32) visit_f64(f64)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Guard { inner: visitor, limits } = self;
        limits
            .nested(|| visitor.visit_some(Guard::new(inner, limits)).map_err(|failure| limits.down(failure)))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Guard { inner: visitor, limits } = self;
        limits.nested(|| {
            visitor.visit_newtype_struct(Guard::new(inner, limits)).map_err(|failure| limits.down(failure))
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Guard { inner: visitor, limits } = self;
        limits.nested(|| visitor.visit_seq(Guard::new(inner, limits)).map_err(|failure| limits.down(failure)))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Guard { inner: visitor, limits } = self;
        limits.nested(|| visitor.visit_map(Guard::new(inner, limits)).map_err(|failure| limits.down(failure)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Guard { inner: visitor, limits } = self;
        limits
            .nested(|| visitor.visit_enum(Guard::new(inner, limits)).map_err(|failure| limits.down(failure)))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guard<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Guard { inner: seed, limits } = self;
        seed.deserialize(Guard::new(inner, limits)).map_err(|failure| limits.down(failure))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guard<'_, A> {
    type Error = Flat;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Flat> {
        self.limits.element()?;
        self.inner.next_element_seed(Guard::new(seed, self.limits)).map_err(|error| self.limits.up(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guard<'_, A> {
    type Error = Flat;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Flat> {
        self.limits.element()?;
        self.inner.next_key_seed(Guard::new(seed, self.limits)).map_err(|error| self.limits.up(error))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Flat> {
        self.inner.next_value_seed(Guard::new(seed, self.limits)).map_err(|error| self.limits.up(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'l, A: EnumAccess<'de>> EnumAccess<'de> for Guard<'l, A> {
    type Error = Flat;
    type Variant = Guard<'l, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), Flat> {
        let (value, variant) =
            self.inner.variant_seed(Guard::new(seed, self.limits)).map_err(|error| self.limits.up(error))?;
        Ok((value, Guard::new(variant, self.limits)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guard<'_, A> {
    type Error = Flat;

    fn unit_variant(self) -> Result<(), Flat> {
        self.inner.unit_variant().map_err(|error| self.limits.up(error))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Flat> {
        self.inner.newtype_variant_seed(Guard::new(seed, self.limits)).map_err(|error| self.limits.up(error))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Flat> {
        self.inner.tuple_variant(len, Guard::new(visitor, self.limits)).map_err(|error| self.limits.up(error))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Flat> {
        self.inner
            .struct_variant(fields, Guard::new(visitor, self.limits))
            .map_err(|error| self.limits.up(error))
    }
}
