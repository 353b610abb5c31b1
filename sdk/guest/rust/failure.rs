//! What went wrong in a call, as the contract's error-reply.

use crate::contract::ErrorReply;

/// Bounds of error-reply in the contract.
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 1024;

/// The end of a hook with an error reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// lower_snake_case, for programs; what is longer than 64 bytes is cut.
    pub code: String,
    /// One line, for people; what is longer than 1,024 bytes is cut.
    pub message: String,
}

impl Failure {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Failure { code: code.to_string(), message: message.into() }
    }

    pub(crate) fn reply(&self) -> ErrorReply {
        let code = if self.code.is_empty() { "failed" } else { &self.code };
        ErrorReply { code: cut(code, CODE_BYTES_MAX).to_string(), message: cut(&self.message, MESSAGE_BYTES_MAX).to_string() }
    }
}

/// Ends a hook: `return fail("bad_margin", "expected a margin that is not negative");`
pub fn fail<T>(code: &str, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(code, message))
}

/// The beginning of a text, of at most so many bytes and whole characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut len = text.len().min(bytes_max);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    &text[..len]
}
