// What went wrong in a call, kept until the error reply is written.

// Bounds of error-reply in the contract.
const CODE_BYTES_MAX = 64;
const MESSAGE_BYTES_MAX = 1024;

/** A failure: `code` is lower_snake_case, for programs, `message` one line for people. */
export class Failure {
  constructor(
    public code: string,
    public message: string,
  ) {}
}

let pending: Failure | null = null;

/** Ends a hook with an error reply: `return fail<BidReply>("bad_margin", "expected …");`. What it returns has no value: it is only returned. */
export function fail<T>(code: string, message: string): T {
  pending = new Failure(cut(code.length > 0 ? code : "failed", CODE_BYTES_MAX), cut(message, MESSAGE_BYTES_MAX));
  if (isReference<T>()) return changetype<T>(0);
  return <T>0;
}

/** Whether something failed since the call began, or since `failure` was asked for: then what came back has no value. */
export function failed(): bool {
  return pending != null;
}

/** What failed, which is then settled. Null: nothing. */
export function failure(): Failure | null {
  const was = pending;
  pending = null;
  return was;
}

/** The beginning of a text, of at most so many bytes of UTF-8 and whole characters. */
export function cut(text: string, bytesMax: i32): string {
  if (String.UTF8.byteLength(text) <= bytesMax) return text;
  let bytes = 0;
  let at = 0;
  while (at < text.length) {
    const point = text.codePointAt(at);
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    if (bytes > bytesMax) break;
    at += point < 0x10000 ? 1 : 2;
  }
  return text.substring(0, at);
}
