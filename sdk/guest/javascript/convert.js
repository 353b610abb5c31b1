// Between the contract's plain objects and those of the component model, whose names are in camelCase and whose absent values are null.

import { Unsound } from "./failure.js";

const U64 = 2 ** 64;
const SHOWN_MAX = 40;

/** A request, or a host's reply, as plain objects with the contract's names. Whole numbers above 2^53 are the nearest there is. */
export function lift(shape, from) {
  const to = { ...shape.constants };
  for (const member of shape.members) {
    const value = from[member.wit];
    if (value !== null && value !== undefined) to[member.name] = lifted(member, value);
  }
  return to;
}

function lifted(member, value) {
  switch (member.kind) {
    case "uint":
      return value < 0 ? value + U64 : value; // numbers from 2^63 on arrive as negative ones
    case "struct":
      return lift(member.of, value);
    case "structs":
      return value.map((item) => lift(member.of, item));
    case "floats":
      return Array.from(value);
    default:
      return value;
  }
}

/** A reply for the component model. Throws Unsound that names the field which is missing, unknown or of another type. */
export function lower(shape, from, path) {
  const isObject = typeof from === "object" && from !== null && !Array.isArray(from) && !(from instanceof Promise);
  if (!isObject) throw unlike(path, `an object with the fields ${shape.names}`, from);
  for (const name of Object.keys(from)) {
    if (!shape.known.has(name)) throw new Unsound(joined(path, name), `there is no such field; the fields are ${shape.names}`);
  }
  for (const [name, wanted] of Object.entries(shape.constants)) {
    if (from[name] !== wanted) throw unlike(joined(path, name), String(wanted), from[name]);
  }
  const to = {};
  for (const member of shape.members) {
    const value = from[member.name];
    if (value !== undefined) to[member.wit] = lowered(member, value, joined(path, member.name));
    else if (!member.optional) throw new Unsound(joined(path, member.name), "this field is missing");
  }
  return to;
}

function lowered(member, value, path) {
  switch (member.kind) {
    case "bool":
      if (typeof value !== "boolean") throw unlike(path, "true or false", value);
      return value;
    case "uint":
      if (Number.isInteger(value) && value >= 0 && value < member.end) return value;
      throw unlike(path, `a whole number from 0 to ${limit(member.end)}`, value);
    case "float":
      return number(value, path);
    case "text":
      return text(value, path);
    case "bytes":
      if (!(value instanceof Uint8Array)) throw unlike(path, "a Uint8Array", value);
      return value;
    case "words":
      if (!member.words.includes(value)) throw unlike(path, `one of ${member.words.join(", ")}`, value);
      return value;
    case "struct":
      return lower(member.of, value, path);
    case "structs":
      return items(value, path, (item, place) => lower(member.of, item, place));
    case "texts":
      return items(value, path, text);
    case "floats":
      return items(value, path, number);
    case "tuple":
      return tuple(member, value, path);
    case "tuples":
      return items(value, path, (item, place) => tuple(member, item, place));
  }
}

function text(value, path) {
  if (typeof value !== "string") throw unlike(path, "a string", value);
  return value.toWellFormed();
}

function number(value, path) {
  if (typeof value !== "number" || Number.isNaN(value)) throw unlike(path, "a number", value);
  return value;
}

function items(value, path, convert) {
  if (!Array.isArray(value)) throw unlike(path, "an array", value);
  return Array.from(value, (item, index) => convert(item, `${path}[${index}]`));
}

function tuple(member, value, path) {
  if (!Array.isArray(value) || value.length !== member.length) throw unlike(path, `an array of ${member.length} numbers`, value);
  return items(value, path, number);
}

function joined(path, name) {
  return path === "" ? name : `${path}.${name}`;
}

function limit(end) {
  return end === U64 ? "2^64 - 1" : String(end - 1);
}

export function unlike(path, wanted, got) {
  return new Unsound(path, `expected ${wanted}, got ${shown(got)}`);
}

function shown(value) {
  if (value === undefined) return "nothing";
  if (value === null) return "null (leave a field out that has no value)";
  if (typeof value === "string") return JSON.stringify(value.length > SHOWN_MAX ? `${value.slice(0, SHOWN_MAX)}…` : value);
  if (typeof value === "bigint") return `the BigInt ${value}`;
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (value instanceof Promise) return "a Promise (a hook answers at once: it cannot be async)";
  if (typeof value === "object") return `an object of type ${value.constructor?.name ?? "unknown"}`;
  return String(value);
}
