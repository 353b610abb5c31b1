//! The host's functions (`snapcount:host/1`, docs/abi.md). An import that the skill never calls is not in its module, so a skill
//! needs only the capabilities that it uses.

use crate::contract::{ErrorReply, FlagReply, FlagRequest};
use crate::decoding::{decode, Decode};
use crate::encoding::{encode, Encode};
use crate::failure::Failure;

mod raw {
    #[link(wasm_import_module = "snapcount:host/1")]
    extern "C" {
        pub fn log(level: i32, at: *const u8, len: usize);
        pub fn now_ms() -> i64;
        pub fn random(at: *mut u8, len: usize);
        pub fn state_get(key: *const u8, key_len: usize, out: *mut u8, out_cap: usize) -> i32;
        pub fn state_set(key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> i32;
        pub fn call(capability: *const u8, capability_len: usize, request: *const u8, request_len: usize, out: *mut u8, out_cap: usize) -> u32;
    }
}

/// Room for a stored value at the first attempt; a longer one costs a second host call.
const STATE_FIRST_BYTES: usize = 512;
/// docs/abi.md: the room must be at least this, and no reply of a driver is longer.
const CALL_REPLY_BYTES_MAX: usize = 4096;
const ERROR_BIT: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

// SAFETY of the calls below: each pointer is of a slice that lives until the call has returned, with its own length.

/// Writes one line to the host's log (capability `log`).
pub fn log(level: Level, line: &str) {
    unsafe { raw::log(level as i32, line.as_ptr(), line.len()) }
}

/// Unix time in milliseconds (capability `clock`).
pub fn now_ms() -> i64 {
    unsafe { raw::now_ms() }
}

/// Fills `bytes` with random bytes (capability `random`).
pub fn random(bytes: &mut [u8]) {
    unsafe { raw::random(bytes.as_mut_ptr(), bytes.len()) }
}

/// The value stored under `key`, if there is one (capability `state`).
pub fn state_get(key: &str) -> Option<Vec<u8>> {
    let mut out = vec![0; STATE_FIRST_BYTES];
    loop {
        let len = unsafe { raw::state_get(key.as_ptr(), key.len(), out.as_mut_ptr(), out.len()) };
        let len = usize::try_from(len).ok()?;
        if len <= out.len() {
            out.truncate(len);
            return Some(out);
        }
        out.resize(len, 0);
    }
}

/// Stores a value; an empty one deletes the key (capability `state`). Fails with the code `state_full`.
pub fn state_set(key: &str, value: &[u8]) -> Result<(), Failure> {
    match unsafe { raw::state_set(key.as_ptr(), key.len(), value.as_ptr(), value.len()) } {
        0 => Ok(()),
        _ => Err(Failure::new("state_full", format!("expected room for {} bytes of state, got to the quota", value.len()))),
    }
}

/// Whether the node's operators have switched a feature flag on (capability `flags`). `name` is lower_snake_case, at most 64 bytes; a flag
/// that nobody named, or that cannot be asked for, is off.
pub fn flag(name: &str) -> bool {
    let asked = FlagRequest { flag: name.to_string() };
    call("flags", &asked).map_or(false, |reply: FlagReply| reply.on)
}

/// Asks the driver behind `capability`. An error reply, as `unsafe_command`, becomes the failure: pass it on with `?`, or
/// look at its code.
pub fn call<Request: Encode, Reply: Decode>(capability: &str, request: &Request) -> Result<Reply, Failure> {
    let asked = encode(request)?;
    let mut out = vec![0; CALL_REPLY_BYTES_MAX];
    let result = unsafe { raw::call(capability.as_ptr(), capability.len(), asked.as_ptr(), asked.len(), out.as_mut_ptr(), out.len()) };
    let reply = &out[..((result & !ERROR_BIT) as usize).min(out.len())];
    if result & ERROR_BIT == 0 {
        if let Ok(reply) = decode(reply) {
            return Ok(reply);
        }
    } else if let Ok(ErrorReply { code, message }) = decode(reply) {
        return Err(Failure { code, message });
    }
    Err(Failure::new("bad_reply", format!("expected a reply of {} in the shape of the contract, got something else", capability)))
}
