// What a skill may ask of its host. `granted` has the interfaces of the capabilities in skill.toml, and no others.

import { lift, lower, unlike } from "./convert.js";
import { Failure, inWords } from "./failure.js";
import { granted } from "./granted.js";
import { COMMANDS, MotionReply } from "./shapes.js";

const LEVELS = ["debug", "info", "warning", "error"];

function interfaceOf(capability, asked) {
  const found = granted[capability];
  if (found === undefined) throw new Error(`${asked}: the capability ${capability} is not in skill.toml; add it to \`capabilities\``);
  return found;
}

/** Calls the host. An error reply of its, which comes as the payload of an exception, becomes a Failure. */
function asking(call) {
  try {
    return call();
  } catch (thrown) {
    const refusal = thrown?.payload;
    if (typeof refusal?.code === "string") throw new Failure(refusal.code, refusal.message);
    throw thrown;
  }
}

function bytes(value, path) {
  if (!(value instanceof Uint8Array)) throw unlike(path, "a Uint8Array", value);
  return value;
}

/** Writes one line to the host's log (capability `log`). `level` is debug, info, warning or error. */
export function log(level, line) {
  const host = interfaceOf("log", "log");
  if (!LEVELS.includes(level)) throw unlike("log", `a level of ${LEVELS.join(", ")}`, level);
  host.write(level, String(line).toWellFormed());
}

/** Unix time in milliseconds (capability `clock`). */
export function nowMs() {
  return interfaceOf("clock", "nowMs").nowMs();
}

/** So many random bytes (capability `random`). */
export function random(size) {
  const host = interfaceOf("random", "random");
  if (!Number.isInteger(size) || size < 0 || size >= 2 ** 31) throw unlike("random", "a whole number of bytes", size);
  return host.getBytes(size);
}

/** The skill's own keys and values, which outlive it (capability `state`). Keys are strings, values bytes. */
export const state = {
  /** The value, or undefined. */
  get(key) {
    return interfaceOf("state", "state.get").get(name(key, "state.get")) ?? undefined;
  },
  /** False: the quota is full, or the value too long; nothing was stored. An empty value deletes the key. */
  set(key, value) {
    const host = interfaceOf("state", "state.set");
    try {
      host.set(name(key, "state.set"), bytes(value, "state.set"));
    } catch (thrown) {
      if (thrown?.payload === "full") return false;
      throw thrown;
    }
    return true;
  },
  delete(key) {
    state.set(key, new Uint8Array(0));
  },
};

function name(key, path) {
  if (typeof key !== "string") throw unlike(path, "a string as key", key);
  return key.toWellFormed();
}

/** Behaviour that the node's operators switch on (capability `flags`). */
export const flags = {
  /** A flag that nobody named, or that cannot be asked for, is off. */
  isOn(flag) {
    const host = interfaceOf("flags", "flags.isOn");
    try {
      return asking(() => host.isOn(name(flag, "flags.isOn")));
    } catch (thrown) {
      if (thrown instanceof Failure) return false;
      throw thrown;
    }
  },
};

/** Gives the machine a command (capability `motion`), as `{op: "move", moves: [[x, y, z, mm_s]]}`. One that is refused throws a Failure. */
export function motion(command) {
  const host = interfaceOf("motion", "motion");
  const shape = COMMANDS[command?.op];
  if (shape === undefined) throw unlike("motion.op", `one of ${Object.keys(COMMANDS).join(", ")}`, command?.op);
  const lowered = lower(shape, command, "motion");
  const asked = shape.members.length === 0 ? { tag: command.op } : { tag: command.op, val: lowered };
  return lift(MotionReply, asking(() => host.execute(asked)));
}

/** Asks the driver of any other capability; request and reply are CBOR (see `encode` and `decode`). An error reply throws a Failure. */
export function ask(capability, request) {
  const host = interfaceOf(capability, "ask");
  if (host.ask === undefined) throw new Error(`ask: the capability ${capability} has functions of its own`);
  return asking(() => host.ask(capability, bytes(request, "ask")));
}

const CONSOLE = { debug: "debug", log: "info", info: "info", warn: "warning", error: "error" };

globalThis.console = Object.fromEntries(
  Object.entries(CONSOLE).map(([method, level]) => [method, (...values) => log(level, values.map(shown).join(" "))]),
);

function shown(value) {
  if (value instanceof Error) return inWords(value);
  return typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
}
