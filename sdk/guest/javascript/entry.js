// Makes the component's functions of a skill's: checks at build time that each hook has one, and converts on the way in and out.

import { lift, lower, unlike } from "./convert.js";
import { told } from "./failure.js";
import { HOOKS, PlanProgress, PlanReport } from "./shapes.js";

/** Functions by hook. `file` is where the skill's are, for the error; runs when the skill is built. */
export function answering(skill, file, names) {
  return Object.fromEntries(names.map((name) => [name, answer(name, functionOf(skill, file, name))]));
}

function functionOf(skill, file, name) {
  if (typeof skill[name] === "function") return skill[name];
  const exported = Object.keys(skill);
  const meant = exported.find((other) => plain(other) === plain(name)) ?? exported.find((other) => isClose(other, name));
  const there = exported.length === 0 ? "it exports nothing" : `it exports ${exported.join(", ")}`;
  const hint = meant === undefined || meant === name ? there : `did you mean ${meant}?`;
  // The build looks for this line, and puts the place of what was meant before it.
  throw new Error(`${file}: there is no exported function ${name} for the hook ${name} of skill.toml; ${hint}`);
}

function answer(hook, call) {
  const [request, reply] = HOOKS[hook];
  return (asked) => {
    let said;
    try {
      said = call(lift(request, asked ?? {})); // an empty request is no parameter
    } catch (thrown) {
      throw told(thrown);
    }
    try {
      return hook === "plan_job" ? planned(said) : lower(reply, said, "");
    } catch (thrown) {
      throw told(thrown, `reply of ${hook}: `);
    }
  };
}

/** The reply of `plan_job`: its constant `done` says which of the two it is. */
function planned(said) {
  if (typeof said?.done !== "boolean") throw unlike("done", "true or false", said?.done);
  return said.done ? { tag: "report", val: lower(PlanReport, said, "") } : { tag: "progress", val: lower(PlanProgress, said, "") };
}

function plain(name) {
  return name.toLowerCase().replaceAll("_", "");
}

/** Whether one letter too many, too few, wrong, or two changed places make the difference. */
function isClose(one, other) {
  const [short, long] = one.length <= other.length ? [one, other] : [other, one];
  if (long.length - short.length > 1) return false;
  let at = 0;
  while (at < short.length && short[at] === long[at]) at++;
  if (short.length < long.length) return short.slice(at) === long.slice(at + 1);
  const isSwapped = short[at] === long[at + 1] && short[at + 1] === long[at];
  return short.slice(at + 1) === long.slice(at + 1) || (isSwapped && short.slice(at + 2) === long.slice(at + 2));
}
