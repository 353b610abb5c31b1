// What a bounty asks of a node: how long it is busy with it, what that burns and wears, and what it costs.

const MS_PER_S = 1000;
const MS_PER_HOUR = 3_600_000;
/** Above this a travel is not counted in milliseconds any more: nobody waits for its end. */
const TRAVEL_MS_END = 2 ** 53;
/** Times of the contract have 64 bits. */
const TIME_MS_END = 2 ** 64;

/**
 * `finish_ms` is undefined for a bounty that is never done; the cost is then that of the work alone.
 * @param {import("snapcount").BidRequest} request
 */
export function planOf({ bounty, costs, node }) {
  const [dx, dy] = bounty.position_m.map((to, axis) => to - node.position_m[axis]);
  const distance_m = Math.hypot(dx, dy);
  const travel_ms = distance_m === 0 ? 0 : node.speed_m_s > 0 ? Math.ceil((distance_m / node.speed_m_s) * MS_PER_S) : Infinity;
  const busy_ms = travel_ms + bounty.work_ms;
  const finish_ms = busy_ms + node.queue_ms;
  const isDone = travel_ms < TRAVEL_MS_END && finish_ms < TIME_MS_END;
  const perHour = node.fuel_per_hour * costs.fuel_unit + costs.hour + node.wear_per_hour * costs.wear;
  return {
    distance_m,
    travel_ms,
    finish_ms: isDone ? finish_ms : undefined,
    fuel: node.fuel_per_hour * hours(finish_ms),
    wear: node.wear + node.wear_per_hour * hours(finish_ms),
    cost: perHour * hours(isDone ? busy_ms : bounty.work_ms),
  };
}

function hours(ms) {
  return ms / MS_PER_HOUR;
}
