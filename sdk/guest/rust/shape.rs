//! How a Rust type stands for CBOR, written once for each shape.
//!
//! | Rust | CBOR |
//! |---|---|
//! | `bool` | true, false |
//! | `u64`, `i64` | integer |
//! | `f64` | float |
//! | `String` | text |
//! | `Bytes` | byte string |
//! | `Vec<T>`, `[T; N]` | array |
//! | an enum of `words!` | text, one of a list of words |
//! | a struct of `shape!` | map, one key for each field; a field `Option<T>` that is None is an absent key |

/// Defines a struct that stands for a map. Fields stand in the order of their encoded keys, shorter names first, then
/// alphabetical (RFC 8949, section 4.2.1); the compiler refuses another order. Bounds, both included, are those of a number's
/// value, a text's length in characters, a byte string's in bytes, or a list's count; behind `of` are those of a list's items.
///
/// ```
/// snapcount::shape! {
///     /// What a cell does next.
///     pub struct Job {
///         name: String [1, 64],
///         feed_mm_min: f64 [0, f64::MAX],
///         tolerance_um: Option<f64>,
///     }
/// }
/// ```
#[macro_export]
macro_rules! shape {
    ($($(#[$about:meta])* pub struct $name:ident { $($(#[$note:meta])* $field:ident : $type:ty $([$low:expr, $high:expr] $(of [$least:expr, $most:expr])?)?),* $(,)? })+) => { $(
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $($(#[$note])* pub $field: $type),* }

        impl $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        const _: () = assert!($crate::entry::in_wire_order($name::KEYS), "the fields of a shape stand in the order of their encoded keys: shorter names first, then alphabetical");

        impl $crate::Decode for $name {
            fn decode(input: &mut $crate::Reader) -> Result<Self, $crate::Malformed> {
                #[allow(unused_mut)]
                let mut map = input.map(Self::KEYS)?;
                let value = $name { $($field: $crate::shape!(@read input, map, $field $([$low, $high] $(of [$least, $most])?)?)),* };
                input.end_map(map)?;
                Ok(value)
            }
        }

        impl $crate::Encode for $name {
            fn encode(&self, out: &mut $crate::Writer) {
                out.map(Self::KEYS.len() $(- usize::from($crate::Encode::is_absent(&self.$field)))*);
                $(out.field(stringify!($field), &self.$field);)*
            }
        }
    )+ };
    (@read $input:ident, $map:ident, $field:ident) => { $input.field(&mut $map, stringify!($field))? };
    (@read $input:ident, $map:ident, $field:ident [$low:expr, $high:expr]) => {
        $input.field_within(&mut $map, stringify!($field), $low as f64, $high as f64)?
    };
    (@read $input:ident, $map:ident, $field:ident [$low:expr, $high:expr] of [$least:expr, $most:expr]) => {
        $input.list_within(&mut $map, stringify!($field), ($low as f64, $high as f64), ($least as f64, $most as f64))?
    };
}

/// Defines an enum that stands for text, one of a list of words. The first is the default.
///
/// ```
/// snapcount::words! {
///     /// What becomes of a job.
///     pub enum Verdict { Accept = "accept", Reject = "reject" }
/// }
/// ```
#[macro_export]
macro_rules! words {
    ($($(#[$about:meta])* pub enum $name:ident { $($variant:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum $name { $($variant),+ }

        impl $name {
            const ALL: &'static [$name] = &[$($name::$variant),+];
            const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word that stands for it on the wire.
            pub fn word(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl $crate::Decode for $name {
            fn decode(input: &mut $crate::Reader) -> Result<Self, $crate::Malformed> {
                Ok(Self::ALL[input.word(Self::WORDS)?])
            }
        }

        impl $crate::Encode for $name {
            fn encode(&self, out: &mut $crate::Writer) {
                out.text(self.word());
            }
        }
    )+ };
}

/// Defines types with one value, for keys that always have the same.
macro_rules! constants {
    ($($(#[$about:meta])* $name:ident = $value:expr;)+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct $name;

        impl $crate::Decode for $name {
            fn decode(input: &mut $crate::Reader) -> Result<Self, $crate::Malformed> {
                input.constant($value)?;
                Ok($name)
            }
        }

        impl $crate::Encode for $name {
            fn encode(&self, out: &mut $crate::Writer) {
                $crate::Encode::encode(&$value, out);
            }
        }
    )+ };
}
pub(crate) use constants;
