// Runs before everything else: what would be ambient authority, or would answer otherwise on another machine, says what to take instead.

const TIME = "a skill has no clock of its own: take nowMs(), with the capability clock";
const CHANCE = "a skill has no random numbers of its own: take random(size), with the capability random";

function missing(message) {
  return () => {
    throw new Error(message);
  };
}

const Given = Date;

/** Date with a point in time works as ever, in UTC; what would ask for the present throws. */
class DateOfGivenTime extends Given {
  constructor(...given) {
    if (given.length === 0) throw new Error(`new Date(): ${TIME}`);
    super(...given);
  }
}
DateOfGivenTime.now = missing(`Date.now(): ${TIME}`);
// A function, not a class: Date() without `new` is a text of the present, and its error should say so.
const GuardedDate = new Proxy(DateOfGivenTime, { apply: missing(`Date(): ${TIME}`) });
DateOfGivenTime.prototype.constructor = GuardedDate;
Object.defineProperty(DateOfGivenTime, "name", { value: "Date" });
globalThis.Date = GuardedDate;
Math.random = missing(`Math.random(): ${CHANCE}`);
delete globalThis.performance;
