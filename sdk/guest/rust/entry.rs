//! What the host calls: the exports of docs/abi.md, made from a skill's own functions by `export!`.

use std::cell::UnsafeCell;

use crate::contract::ErrorReply;
use crate::decoding::{decode, Decode};
use crate::encoding::{encode, Encode};
use crate::failure::Failure;

/// Bit 31 of a reply's length marks an error reply.
const ERROR_BIT: u64 = 1 << 31;

/// The request and the reply of the call that is going on. `u64` aligns the request to 8 bytes.
struct Kept {
    request: Vec<u64>,
    reply: Vec<u8>,
}

struct Exchange(UnsafeCell<Kept>);

// SAFETY: docs/abi.md: a module has no threads, and the host makes one call at a time. A hook cannot reach it.
unsafe impl Sync for Exchange {}

static EXCHANGE: Exchange = Exchange(UnsafeCell::new(Kept { request: Vec::new(), reply: Vec::new() }));

fn kept() -> &'static mut Kept {
    // SAFETY: see `Exchange`; no reference outlives the function below that asked for it.
    unsafe { &mut *EXCHANGE.0.get() }
}

pub fn alloc(len: usize) -> *mut u8 {
    let request = &mut kept().request;
    request.clear();
    match request.try_reserve(len / 8 + 1) {
        Ok(()) => request.as_mut_ptr().cast(),
        Err(_) => std::ptr::null_mut(),
    }
}

/// Gives the room of both back.
pub fn reset() {
    *kept() = Kept { request: Vec::new(), reply: Vec::new() };
}

pub fn answer<Request: Decode, Reply: Encode>(at: *const u8, len: usize, hook: fn(Request) -> Result<Reply, Failure>) -> u64 {
    // SAFETY: the host wrote `len` bytes to the room that `alloc` gave it. An empty slice still needs a pointer that is not null.
    let bytes = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(at, len) } };
    send(decode(bytes).and_then(hook).and_then(|reply| encode(&reply)))
}

/// `ptr << 32 | len` of a reply, which stays until the next call.
fn send(result: Result<Vec<u8>, Failure>) -> u64 {
    let (reply, flag) = match result {
        Ok(reply) => (reply, 0),
        Err(failure) => {
            // The request is of no use any more, and its room may be all there is.
            reset();
            let reply: ErrorReply = failure.reply();
            match encode(&reply) {
                Ok(bytes) => (bytes, ERROR_BIT),
                Err(_) => std::process::abort(),
            }
        }
    };
    let packed = (reply.as_ptr() as u64) << 32 | flag | reply.len() as u64;
    kept().reply = reply;
    packed
}

/// Whether keys stand in the order of their encodings: shorter ones first, then bytewise.
pub const fn in_wire_order(keys: &[&str]) -> bool {
    let mut at = 1;
    while at < keys.len() {
        if !comes_first(keys[at - 1].as_bytes(), keys[at].as_bytes()) {
            return false;
        }
        at += 1;
    }
    true
}

const fn comes_first(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return one.len() < other.len();
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return one[at] < other[at];
        }
        at += 1;
    }
    false
}
