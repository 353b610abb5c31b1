// How a call ends without a reply: with an error reply of the skill's own, or with a fault.

/** Bounds of error-reply in the contract. */
const CODE_MAX = 64;
const MESSAGE_MAX = 1024;
const CODE = /^[a-z][a-z0-9_]*$/;
/** By these codes the host knows a fault of the skill's, which it counts as one and whose words it keeps. */
const TRAP = "trap";
const OUT_OF_MEMORY = "trap_memory";
/** A line of a stack in the skill's own files. */
const PLACE = /(?:at |\()\/((?!node_modules\/|snapcount-entry)[^():\s]+:\d+:\d+)/;

/** What `fail` throws, and what a driver or another part of the host refused. */
export class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.name = "Failure";
    this.code = code;
  }
}

/** Ends the call with an error reply: `code` is lower_snake_case, for programs, `message` one line for people. */
export function fail(code, message) {
  if (typeof code !== "string" || code.length > CODE_MAX || !CODE.test(code)) {
    throw new TypeError(`fail: expected a code of at most ${CODE_MAX} characters in lower_snake_case, got ${String(code)}`);
  }
  if (code === TRAP || code === OUT_OF_MEMORY) throw new TypeError(`fail: the code ${code} is kept for what nobody means to throw`);
  throw new Failure(code, cut(String(message)));
}

/** A value of another type than was asked for; `path` is its place, empty for the whole. */
export class Unsound extends Error {
  constructor(path, problem) {
    super(path === "" ? problem : `${path}: ${problem}`);
  }
}

/** What the host is told of what was thrown; only a Failure is the skill's own error. `before` is put before the words of a fault. */
export function told(thrown, before = "") {
  if (thrown instanceof Failure) return { code: thrown.code, message: cut(thrown.message) };
  const isFull = thrown instanceof InternalError && thrown.message === "out of memory"; // QuickJS has a class of its own for it
  return { code: isFull ? OUT_OF_MEMORY : TRAP, message: cut(before + inWords(thrown)) };
}

/** What was thrown and where, in one line. */
export function inWords(thrown) {
  if (!(thrown instanceof Error)) return `threw ${typeof thrown}: ${String(thrown)}`;
  const place = PLACE.exec(thrown.stack ?? "");
  const kind = thrown instanceof Unsound ? "" : `${thrown.name}: `;
  return `${kind}${thrown.message}${place ? ` (${place[1]})` : ""}`;
}

function cut(text) {
  return text.slice(0, MESSAGE_MAX).toWellFormed();
}
