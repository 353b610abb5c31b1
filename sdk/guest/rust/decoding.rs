//! Strict decoding of deterministic CBOR. Keys arrive in a known order, so each is compared with the one that must come next.
//!
//! Refused: an unknown, missing, repeated or misplaced key; another type than the field's; a value, length or count outside the
//! field's bounds; lengths that are indefinite; lengths and numbers that are not in their shortest form; NaN and infinities;
//! text that is not UTF-8; tags; null; bytes behind the value. The depth is that of the types, and a list grows with the items
//! that are really there.

use crate::cbor::{self, Major};
use crate::failure::Failure;
use crate::text::number;

/// An unknown key is shown up to this length.
const KEY_SHOWN_MAX: usize = 64;
/// Room for this many items is taken before the first was read.
const ITEMS_FIRST: u64 = 16;

/// What can be read. [`shape!`] and [`words!`] implement it.
pub trait Decode: Sized {
    fn decode(input: &mut Reader) -> Result<Self, Malformed>;

    /// What stands for a key that is absent; None where it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// What has bounds in a shape: a number's value, text's length in characters, a byte string's in bytes, or a list's count of items.
pub trait Bounded {
    /// Behind a number in a message, as in `0 to 16 items`.
    const UNIT: &'static str;

    /// None where there is nothing to bound.
    fn amount(&self) -> Option<f64>;
}

/// Decodes exactly one item. A failure has the code `bad_request` and a message that names the key.
pub fn decode<T: Decode>(bytes: &[u8]) -> Result<T, Failure> {
    let mut input = Reader { rest: bytes };
    T::decode(&mut input).and_then(|value| input.end().map(|()| value)).map_err(Malformed::failure)
}

/// Where decoding failed, as `products[2].recovery.sigma`, and why.
pub struct Malformed(Box<(String, String)>);

impl Malformed {
    #[cold]
    pub fn new(problem: String) -> Self {
        Malformed(Box::new((String::new(), problem)))
    }

    /// The failure seen from outside of a key.
    #[cold]
    fn inside(mut self, part: &str) -> Self {
        let path = &mut self.0 .0;
        if !path.is_empty() && !path.starts_with('[') {
            path.insert(0, '.');
        }
        path.insert_str(0, part);
        self
    }

    #[cold]
    fn failure(self) -> Failure {
        let (path, problem) = *self.0;
        let place = if path.is_empty() { "request" } else { &path };
        Failure::new("bad_request", format!("{}: {}", place, problem))
    }
}

fn malformed<T>(problem: &str) -> Result<T, Malformed> {
    Err(Malformed::new(problem.to_string()))
}

/// The bytes that were not read yet.
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// The entries of a map that were not read yet, and all keys that it may have.
pub struct Map {
    left: u64,
    keys: &'static [&'static str],
}

impl<'a> Reader<'a> {
    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            malformed("expected the end, got more bytes")
        }
    }

    /// Begins a map that may have these keys, in this order.
    pub fn map(&mut self, keys: &'static [&'static str]) -> Result<Map, Malformed> {
        Ok(Map { left: self.head(Major::Map, "a map")?, keys })
    }

    /// The value of `key`, which must come next.
    pub fn field<T: Decode>(&mut self, map: &mut Map, key: &'static str) -> Result<T, Malformed> {
        if map.left > 0 && self.takes_key(key) {
            map.left -= 1;
            return T::decode(self).map_err(|error| error.inside(key));
        }
        match T::absent() {
            Some(absent) => Ok(absent),
            None => Err(self.unexpected_key(map, Some(key))),
        }
    }

    /// The value of `key`, which must come next and lie within bounds, both included.
    pub fn field_within<T: Decode + Bounded>(&mut self, map: &mut Map, key: &'static str, low: f64, high: f64) -> Result<T, Malformed> {
        let value: T = self.field(map, key)?;
        match value.amount() {
            Some(amount) if !(amount >= low && amount <= high) => Err(out_of_bounds(amount, low, high, T::UNIT).inside(key)),
            _ => Ok(value),
        }
    }

    /// A list between bounds of its count, whose items lie between bounds of theirs, all included.
    pub fn list_within<T: Decode + Bounded>(
        &mut self,
        map: &mut Map,
        key: &'static str,
        count: (f64, f64),
        each: (f64, f64),
    ) -> Result<Vec<T>, Malformed> {
        let items: Vec<T> = self.field_within(map, key, count.0, count.1)?;
        for (index, amount) in items.iter().enumerate().filter_map(|(index, item)| Some((index, item.amount()?))) {
            if !(amount >= each.0 && amount <= each.1) {
                return Err(out_of_bounds(amount, each.0, each.1, T::UNIT).inside(&format!("[{}]", index)).inside(key));
            }
        }
        Ok(items)
    }

    /// Ends a map: refuses a key that is left.
    pub fn end_map(&mut self, map: Map) -> Result<(), Malformed> {
        if map.left == 0 {
            Ok(())
        } else {
            Err(self.unexpected_key(&map, None))
        }
    }

    fn takes_key(&mut self, key: &str) -> bool {
        let (head, len) = cbor::head(Major::Text, key.len() as u64);
        match self.rest.strip_prefix(&head[..len]).and_then(|rest| rest.strip_prefix(key.as_bytes())) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Says whether the key that stands here is unknown or misplaced, or the wanted one is missing.
    #[cold]
    fn unexpected_key(&mut self, map: &Map, wanted: Option<&str>) -> Malformed {
        if let (0, Some(wanted)) = (map.left, wanted) {
            return Malformed::new(format!("the key \"{}\" is missing", wanted));
        }
        let key = match String::decode(self) {
            Ok(key) => key,
            Err(error) => return error,
        };
        Malformed::new(match wanted {
            _ if !map.keys.contains(&&*key) => format!("the key \"{}\" is not known", crate::failure::cut(&key, KEY_SHOWN_MAX)),
            Some(wanted) => format!("the key \"{}\" is missing or out of order", wanted),
            None => format!("the key \"{}\" is there twice or out of order", key),
        })
    }

    /// Reads a head of one major type and returns its argument.
    fn head(&mut self, major: Major, expected: &str) -> Result<u64, Malformed> {
        let initial = match self.rest.first() {
            Some(initial) if initial >> 5 == major as u8 => *initial,
            _ => return self.another_type(expected),
        };
        let info = initial & 31;
        if info < 24 {
            self.rest = &self.rest[1..];
            return Ok(u64::from(info));
        }
        let bytes = match cbor::argument_bytes(info) {
            Some(bytes) if bytes < self.rest.len() => bytes,
            _ => return incomplete(expected),
        };
        let argument = cbor::big_endian(&self.rest[1..=bytes]);
        if !cbor::is_shortest(argument, bytes) {
            return incomplete(expected);
        }
        self.rest = &self.rest[1 + bytes..];
        Ok(argument)
    }

    fn string(&mut self, major: Major, expected: &str) -> Result<&'a [u8], Malformed> {
        let len = self.head(major, expected)?;
        if len > self.rest.len() as u64 {
            return malformed("expected more bytes, got the end");
        }
        let (string, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(string)
    }

    /// Reads text that must be one of the words, and returns which.
    pub fn word(&mut self, words: &[&str]) -> Result<usize, Malformed> {
        let text = self.string(Major::Text, "text")?;
        match words.iter().position(|word| word.as_bytes() == text) {
            Some(at) => Ok(at),
            None => malformed("expected one of the words of the contract, got another"),
        }
    }

    /// Reads a boolean that must have this value.
    pub fn constant(&mut self, wanted: bool) -> Result<(), Malformed> {
        match bool::decode(self) {
            Ok(got) if got == wanted => Ok(()),
            _ => malformed("expected the constant of the contract"),
        }
    }

    #[cold]
    fn another_type<T>(&self, expected: &str) -> Result<T, Malformed> {
        let got = match self.rest.first() {
            None => "the end",
            Some(0xf4 | 0xf5) => "a boolean",
            Some(0xf9..=0xfb) => "a float",
            Some(initial) => {
                const MAJORS: [&str; 8] = [
                    "an unsigned integer", "a negative integer", "a byte string", "text", "an array", "a map", "a tag", "another simple value",
                ];
                MAJORS[usize::from(initial >> 5)]
            }
        };
        Err(Malformed::new(format!("expected {}, got {}", expected, got)))
    }
}

#[cold]
fn incomplete<T>(expected: &str) -> Result<T, Malformed> {
    Err(Malformed::new(format!("expected {} in its shortest, complete form", expected)))
}

#[cold]
fn out_of_bounds(amount: f64, low: f64, high: f64, unit: &str) -> Malformed {
    let (got, low) = (number(amount, 6), number(low, 6));
    Malformed::new(if high == f64::MAX {
        format!("expected at least {}{}, got {}", low, unit, got)
    } else {
        format!("expected {} to {}{}, got {}", low, number(high, 6), unit, got)
    })
}

impl Decode for bool {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        let value = match input.rest.first() {
            Some(&cbor::TRUE) => true,
            Some(&cbor::FALSE) => false,
            _ => return input.another_type("a boolean"),
        };
        input.rest = &input.rest[1..];
        Ok(value)
    }
}

impl Decode for u64 {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        input.head(Major::Uint, "an unsigned integer")
    }
}

impl Decode for i64 {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        let negative = matches!(input.rest.first(), Some(initial) if initial >> 5 == Major::Nint as u8);
        // RFC 8949, section 3.1: a negative integer n is stored as -1 - n.
        let argument = input.head(if negative { Major::Nint } else { Major::Uint }, "an integer")?;
        match i64::try_from(argument) {
            Ok(value) => Ok(if negative { -1 - value } else { value }),
            Err(_) => malformed("expected an integer of 64 bits"),
        }
    }
}

/// A finite number in its shortest form: no value of the contract is infinite or not a number.
impl Decode for f64 {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        let bytes = match input.rest.first() {
            Some(initial @ cbor::F16..=cbor::F64) => 2 << (initial - cbor::F16),
            _ => return input.another_type("a float"),
        };
        if bytes >= input.rest.len() {
            return incomplete("a float");
        }
        let (float, rest) = input.rest.split_at(1 + bytes);
        let value = cbor::float_value(cbor::big_endian(&float[1..]), bytes);
        if !value.is_finite() {
            return malformed("expected a finite number");
        }
        let (shortest, len) = cbor::float(value);
        if &shortest[..len] != float {
            return incomplete("a float");
        }
        input.rest = rest;
        Ok(value)
    }
}

impl Decode for String {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        let bytes = input.string(Major::Text, "text")?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => malformed("expected UTF-8"),
        }
    }
}

impl Decode for Vec<u8> {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        Ok(input.string(Major::Bytes, "a byte string")?.to_vec())
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        let count = input.head(Major::Array, "an array")?;
        // Each item takes a byte or more.
        if count > input.rest.len() as u64 {
            return malformed("expected more items, got the end");
        }
        let mut items = Vec::with_capacity(count.min(ITEMS_FIRST) as usize);
        for index in 0..count {
            items.push(item(input, index)?);
        }
        Ok(items)
    }
}

impl<T: Decode + Copy + Default, const N: usize> Decode for [T; N] {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        let count = input.head(Major::Array, "an array")?;
        if count != N as u64 {
            return Err(Malformed::new(format!("expected {} items, got {}", N, count)));
        }
        let mut items = [T::default(); N];
        for (index, place) in items.iter_mut().enumerate() {
            *place = item(input, index as u64)?;
        }
        Ok(items)
    }
}

fn item<T: Decode>(input: &mut Reader, index: u64) -> Result<T, Malformed> {
    T::decode(input).map_err(|error| error.inside(&format!("[{}]", index)))
}

/// A key that may be absent. It is never null.
impl<T: Decode> Decode for Option<T> {
    fn decode(input: &mut Reader) -> Result<Self, Malformed> {
        T::decode(input).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

macro_rules! bounded {
    ($($type:ty, $unit:literal, $self:ident => $amount:expr;)+) => {
        $(impl Bounded for $type {
            const UNIT: &'static str = $unit;
            fn amount(&$self) -> Option<f64> {
                Some($amount)
            }
        })+
    };
}

bounded! {
    u64, "", self => *self as f64;
    i64, "", self => *self as f64;
    f64, "", self => *self;
    String, " characters", self => self.chars().count() as f64;
    Vec<u8>, " bytes", self => self.len() as f64;
}

impl<T: Decode> Bounded for Vec<T> {
    const UNIT: &'static str = " items";
    fn amount(&self) -> Option<f64> {
        Some(self.len() as f64)
    }
}

impl<T: Bounded> Bounded for Option<T> {
    const UNIT: &'static str = T::UNIT;
    fn amount(&self) -> Option<f64> {
        self.as_ref().and_then(T::amount)
    }
}
