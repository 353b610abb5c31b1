// The normal distribution by Mills' ratio R(x) = (1 − Φ(x)) / φ(x), which solves R' = x R − 1. Its Taylor coefficients around a tabulated
// point follow from that: c₁ = x R − 1 and c(n+1) = (x c(n) + c(n−1)) / (n + 1); the distance is at most 1. Beyond the table Laplace's
// continued fraction R(x) = 1/(x + 1/(x + 2/(x + 3/(x + …)))) takes few levels.

/** R(0), R(2), … R(16), from the continued fraction in 50 digits; R(0) is √(π/2). */
const TABLE: StaticArray<f64> = [
  1.2533141373155003, 0.4213692292880545, 0.23665238291356067, 0.16237766089686747, 0.1231319632579323, 0.09902859647173193,
  0.08276628650136917, 0.0710695805388521, 0.06225866599502619,
];
const TABLE_END: f64 = 16;
const LEVELS = 60;
const TERMS_MAX = 60;
const SQRT_2_PI: f64 = 2.5066282746310002; // OEIS A019727

/** Probability that a normal variable with mean 0 and standard deviation 1 is at most z. */
export function atMost(z: f64): f64 {
  const x = Math.abs(z);
  const density = Math.exp(-x * x / 2) / SQRT_2_PI;
  const tail = density == 0 ? 0 : density * mills(x);
  return z < 0 ? tail : 1 - tail;
}

function mills(x: f64): f64 {
  if (x > TABLE_END) {
    let inner = x;
    for (let level = LEVELS; level > 0; level--) inner = x + <f64>level / inner;
    return 1 / inner;
  }
  const place = <i32>Math.round(x / 2);
  const from = <f64>place * 2;
  const step = x - from;
  let before = TABLE[place];
  let coefficient = from * before - 1;
  let power = step;
  let sum = before + coefficient * step;
  for (let n = 2; n < TERMS_MAX; n++) {
    const next = (from * coefficient + before) / <f64>n;
    before = coefficient;
    coefficient = next;
    power *= step;
    const term = coefficient * power;
    sum += term;
    if (Math.abs(term) < 1e-18) break;
  }
  return sum;
}
