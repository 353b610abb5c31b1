//! The Rust guest library: what a Snapcount skill written in Rust uses.
//!
//! A skill is a function for each hook, from a typed request to a typed reply, and one line that exports them:
//!
//! ```
//! use snapcount::{contract::*, export, fail, Failure};
//!
//! export!(bid);
//!
//! fn bid(request: BidRequest) -> Result<BidReply, Failure> {
//!     if request.margin < 0.0 {
//!         return fail("bad_margin", "expected a margin that is not negative");
//!     }
//!     Ok(BidReply { id: request.bounty.id, ..Default::default() })
//! }
//! ```
//!
//! The request is decoded strictly before the function runs; a bad one is answered with the error `bad_request`, which names
//! the key. Requests and replies are plain structs of `String`, `Vec`, `f64`, `u64`, `bool` and `Option`. Shapes of a skill's own,
//! as of a message's payload, are written with [`shape!`] and [`words!`], and go through [`encode`] and [`decode`].
//!
//! Memory is freed as Rust frees it: what a static holds stays from call to call.

pub mod contract;
mod cbor;
mod decoding;
mod encoding;
#[doc(hidden)]
pub mod entry;
mod failure;
mod heap;
mod host;
mod shape;
mod text;

pub use decoding::{decode, Bounded, Decode, Malformed, Map, Reader};
pub use encoding::{encode, Encode, Writer};
pub use failure::{fail, Failure};
pub use host::{call, flag, log, now_ms, random, state_get, state_set, Level};
pub use text::number;

/// A CBOR byte string. Text is a `String`.
pub type Bytes = Vec<u8>;

/// Exports functions that are named for hooks: `export!(bid, self_test);`. Stands once in a skill.
#[macro_export]
macro_rules! export {
    ($($hook:ident),+ $(,)?) => {
        const _: () = {
            #[export_name = "sc_alloc"]
            extern "C" fn alloc(len: usize) -> *mut u8 {
                $crate::entry::alloc(len)
            }
            #[export_name = "sc_reset"]
            extern "C" fn reset() {
                $crate::entry::reset()
            }
        };
        $(const _: () = {
            #[export_name = concat!("hook_", stringify!($hook))]
            extern "C" fn answer(at: *const u8, len: usize) -> u64 {
                $crate::entry::answer(at, len, $hook)
            }
        };)+
    };
}
