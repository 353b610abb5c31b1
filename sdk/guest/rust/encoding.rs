//! Deterministic CBOR encoding (RFC 8949, section 4.2.1): definite lengths, shortest integers, shortest floats that keep the value.
//! Keys are written in the order of the shape, which the compiler has checked.

use crate::cbor::{self, Major};
use crate::failure::Failure;

/// What can be written. [`shape!`] and [`words!`] implement it.
pub trait Encode {
    fn encode(&self, out: &mut Writer);

    /// Whether the key of this value is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// The bytes written so far. When memory runs out the rest is dropped, and [`encode`] fails.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    full: bool,
}

/// The encoding of a value. Fails with the code `no_memory`.
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut out = Writer::default();
    value.encode(&mut out);
    if out.full {
        return Err(Failure::new("no_memory", "expected room for the encoding, got to the memory ceiling"));
    }
    Ok(out.bytes)
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        if self.bytes.try_reserve(bytes.len()).is_err() {
            self.full = true;
        } else if !self.full {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn head(&mut self, major: Major, argument: u64) {
        let (head, len) = cbor::head(major, argument);
        self.put(&head[..len]);
    }

    /// Begins a map of so many entries.
    pub fn map(&mut self, entries: usize) {
        self.head(Major::Map, entries as u64);
    }

    /// Writes a key and its value, unless that is absent.
    pub fn field<T: Encode>(&mut self, key: &str, value: &T) {
        if !value.is_absent() {
            self.text(key);
            value.encode(self);
        }
    }

    /// Writes text.
    pub fn text(&mut self, text: &str) {
        self.head(Major::Text, text.len() as u64);
        self.put(text.as_bytes());
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Writer) {
        out.put(&[if *self { cbor::TRUE } else { cbor::FALSE }]);
    }
}

impl Encode for u64 {
    fn encode(&self, out: &mut Writer) {
        out.head(Major::Uint, *self);
    }
}

impl Encode for i64 {
    fn encode(&self, out: &mut Writer) {
        match u64::try_from(*self) {
            Ok(value) => out.head(Major::Uint, value),
            // RFC 8949, section 3.1: a negative integer n is stored as -1 - n, which is its complement.
            Err(_) => out.head(Major::Nint, !*self as u64),
        }
    }
}

impl Encode for f64 {
    fn encode(&self, out: &mut Writer) {
        let (float, len) = cbor::float(*self);
        out.put(&float[..len]);
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Writer) {
        out.text(self);
    }
}

impl Encode for Vec<u8> {
    fn encode(&self, out: &mut Writer) {
        out.head(Major::Bytes, self.len() as u64);
        out.put(self);
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Writer) {
        array(self, out);
    }
}

impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, out: &mut Writer) {
        array(self, out);
    }
}

fn array<T: Encode>(items: &[T], out: &mut Writer) {
    out.head(Major::Array, items.len() as u64);
    for item in items {
        item.encode(out);
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Writer) {
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}
