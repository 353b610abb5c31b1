// The price: cost and the wanted margin, or the reward where that is less. Prices stand on a grid of millionths.

const STEPS = 1_000_000;
/** From here on neighbouring numbers are further apart than the grid's steps. */
const GRID_END = 2 ** 53 / STEPS;

/** @returns {{price: number, hasMargin: boolean} | undefined} undefined: the reward does not cover the cost. */
export function priceOf(cost, margin, reward) {
  if (cost > reward) return undefined;
  const wanted = cost * (1 + margin);
  if (wanted > reward) return { price: reward, hasMargin: false };
  return { price: Math.min(onGrid(wanted), reward), hasMargin: true };
}

/** The least multiple of a millionth that is not below the amount: looked for from a step below, as the product may be off by a digit. */
function onGrid(amount) {
  if (amount >= GRID_END) return amount;
  let step = Math.max(Math.floor(amount * STEPS) - 1, 0);
  while (step / STEPS < amount) step += 1;
  return step / STEPS;
}
