//! Typed keys: what a region can be keyed by.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8, NonZeroU16,
    NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize,
};
use std::rc::Rc;
use std::sync::Arc;

use super::KeyWriter;

/// What a [`Region`](crate::Region) can be keyed by: integers, `bool`, `char`, strings, IP addresses, UUIDs (feature
/// `uuid`), options, slices, arrays and vectors of these, tuples of up to eight, references and smart pointers to
/// them, or a type of your own.
///
/// Borrowed and owned forms write the same, so a region keyed by `String` is asked with a `&str`, and one keyed by
/// `Vec<T>` with a `&[T]`.
///
/// ```
/// use tierkeep::{KeyParts, KeyWriter};
///
/// struct Page { site: u32, path: String }
///
/// impl KeyParts for Page {
///     fn write(&self, key: &mut KeyWriter<'_>) {
///         key.pair("site", &self.site.to_string());
///         key.pair("path", &self.path);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot key a region",
    label = "not a key",
    note = "implement `tierkeep::KeyParts` for it, or key the region by integers, strings, or tuples of these"
)]
pub trait KeyParts {
    /// Writes the parts; two different values must write different parts.
    ///
    /// Inside a tuple or a sequence, other parts follow: what is written must itself tell where it ends, as a fixed
    /// number of parts does, or a count before a list.
    fn write(&self, key: &mut KeyWriter<'_>);

    /// Writes a sequence of such values. Default: their number, then each. Bytes write hexadecimal digits instead.
    fn write_slice(slice: &[Self], key: &mut KeyWriter<'_>)
    where
        Self: Sized,
    {
        key.integer(slice.len());
        for value in slice {
            value.write(key);
        }
    }
}

macro_rules! numbers {
    ($($t:ty),* $(,)?) => {$(
        impl KeyParts for $t {
            #[inline]
            fn write(&self, key: &mut KeyWriter<'_>) {
                key.digits(*self);
            }
        }
    )*};
}
numbers!(u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

macro_rules! non_zeros {
    ($($t:ty),* $(,)?) => {$(
        impl KeyParts for $t {
            fn write(&self, key: &mut KeyWriter<'_>) {
                key.digits(self.get());
            }
        }
    )*};
}
non_zeros!(NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroU128, NonZeroUsize);
non_zeros!(NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize);

impl KeyParts for bool {
    fn write(&self, key: &mut KeyWriter<'_>) {
        key.value(if *self { "true" } else { "false" });
    }
}

impl KeyParts for u8 {
    fn write(&self, key: &mut KeyWriter<'_>) {
        key.digits(*self);
    }

    fn write_slice(bytes: &[u8], key: &mut KeyWriter<'_>) {
        key.separate();
        for byte in bytes {
            // Writing into a String cannot fail.
            let _ = write!(key.out, "{byte:02x}");
        }
        if bytes.is_empty() {
            key.out.push(':');
        }
    }
}

impl KeyParts for str {
    fn write(&self, key: &mut KeyWriter<'_>) {
        key.value(self);
    }
}

impl KeyParts for String {
    fn write(&self, key: &mut KeyWriter<'_>) {
        key.value(self);
    }
}

impl KeyParts for char {
    fn write(&self, key: &mut KeyWriter<'_>) {
        key.value(self.encode_utf8(&mut [0; 4]));
    }
}

macro_rules! displayed {
    ($($t:ty),*) => {$(
        impl KeyParts for $t {
            fn write(&self, key: &mut KeyWriter<'_>) {
                key.value(&self.to_string());
            }
        }
    )*};
}
displayed!(IpAddr, Ipv4Addr, Ipv6Addr);

#[cfg(feature = "uuid")]
impl KeyParts for uuid::Uuid {
    fn write(&self, key: &mut KeyWriter<'_>) {
        // Hexadecimal digits and hyphens: nothing to encode.
        key.integer(self.hyphenated());
    }
}

impl<T: KeyParts> KeyParts for [T] {
    fn write(&self, key: &mut KeyWriter<'_>) {
        T::write_slice(self, key);
    }
}

impl<T: KeyParts> KeyParts for Vec<T> {
    fn write(&self, key: &mut KeyWriter<'_>) {
        T::write_slice(self, key);
    }
}

impl<T: KeyParts, const N: usize> KeyParts for [T; N] {
    fn write(&self, key: &mut KeyWriter<'_>) {
        T::write_slice(self, key);
    }
}

/// As a sequence of none or one, so that `None` differs from every `Some`.
impl<T: KeyParts> KeyParts for Option<T> {
    fn write(&self, key: &mut KeyWriter<'_>) {
        key.integer(u8::from(self.is_some()));
        if let Some(value) = self {
            value.write(key);
        }
    }
}

impl<T: KeyParts + ToOwned + ?Sized> KeyParts for Cow<'_, T> {
    fn write(&self, key: &mut KeyWriter<'_>) {
        (**self).write(key);
    }
}

macro_rules! pointers {
    ($($t:ty),*) => {$(
        impl<T: KeyParts + ?Sized> KeyParts for $t {
            fn write(&self, key: &mut KeyWriter<'_>) {
                (**self).write(key);
            }
        }
    )*};
}
pointers!(&T, Box<T>, Arc<T>, Rc<T>);

impl KeyParts for () {
    fn write(&self, _: &mut KeyWriter<'_>) {}
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: KeyParts),+> KeyParts for ($($name,)+) {
            fn write(&self, key: &mut KeyWriter<'_>) {
                #[expect(non_snake_case, reason = "the macro names each field after its type parameter")]
                let ($($name,)+) = self;
                $($name.write(key);)+
            }
        }
    };
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::CacheKey;

    fn text<K: KeyParts + ?Sized>(key: &K) -> String {
        let mut text = String::new();
        key.write(&mut KeyWriter::begin(&mut text, "r", 1));
        text
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(text(&7_u32), "r:v1:7");
        assert_eq!(text(&("a b", Some(7), None::<u8>)), "r:v1:a%20b&1&7&0");
        assert_eq!(text(&vec![("q", "x"), ("p", "")]), "r:v1:2&q&x&p&:");
        assert_eq!(text(&[0xCA_u8, 0xFE]), "r:v1:cafe");
        assert_eq!(text(&IpAddr::V6(Ipv6Addr::LOCALHOST)), "r:v1:%3A%3A1");
    }

    #[cfg(feature = "uuid")]
    #[test]
    fn a_uuid_keys_by_its_usual_text() {
        let uuid = uuid::Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
        assert_eq!(text(&uuid), "r:v1:67e55044-10b1-426f-9247-bb680e5fe0c8");
    }

    #[test]
    fn borrowed_forms_write_as_the_owned_ones() {
        let (owned, bytes) = (vec!["a".to_owned(), String::new()], vec![1_u8, 2]);
        assert_eq!(text(&owned), text(&owned[..]));
        assert_eq!(text(&owned), text(&["a", ""]));
        assert_eq!(text(&bytes), text(&bytes[..]));
        assert_eq!(text(&"a".to_owned()), text("a"));
        assert_eq!(text(&Arc::<str>::from("a")), text("a"));
        assert_eq!(text(&Cow::Borrowed("a")), text("a"));
    }

    type Nested = (Vec<String>, Option<String>, Option<Option<String>>, Vec<Vec<u8>>, String);

    fn nested() -> impl Strategy<Value = Nested> {
        // Few letters, among them all that the text gives a meaning: near misses are what could collide.
        let part = || "[01:&=%]{0,2}";
        (
            prop::collection::vec(part(), 0..3),
            prop::option::of(part()),
            prop::option::of(prop::option::of(part())),
            prop::collection::vec(prop::collection::vec(0..2_u8, 0..2), 0..3),
            part(),
        )
    }

    proptest! {
        #[test]
        fn different_keys_have_different_texts(a in nested(), b in nested()) {
            prop_assert_eq!(text(&a) == text(&b), a == b);
        }

        #[test]
        fn texts_parse(a in nested()) {
            let text = text(&a);
            prop_assert_eq!(CacheKey::parse(&text).map(|key| key.to_string()), Some(text));
        }
    }
}
