"""Impedance as one number from 0 to 1000, and the flags that go with it.

An agent's delay is half a round trip plus its processing behind what already waits:  d = rtt / 2 + processing · (1 + 0.1 · queue)  in ms.
The score is  200 · log10(max(d, 1)) + 150 · (1 - success) + 50 · drift,  clamped. **Each 200 points are ten times slower**: 1 ms is 0,
10 ms is 200, 100 ms is 400, 1 s is 600, 10 s is 800. An agent that fails half of the time scores as if it were 2.4 times slower.
"""

import math

from host.mesh.profiler import Vitals

SCORE_MAX = 1000.0
POINTS_PER_DECADE, FAILURE_POINTS, DRIFT_POINTS = 200.0, 150.0, 50.0
PER_ITEM = 0.1  # as in the arrival kernel's base model
DELAY_MS_MIN = 1.0

SLOW_OVER = 800.0
UNSTABLE_DRIFT_OVER, UNSTABLE_SUCCESS_UNDER = 0.5, 0.9
SPIKE_FACTOR = 2.0
BASELINE_PACE = 1 / 16

SLOW, UNSTABLE, SPIKING = 1, 2, 4
FLAGS: tuple[tuple[str, ...], ...] = tuple(
    tuple(name for bit, name in ((SLOW, "slow"), (UNSTABLE, "unstable"), (SPIKING, "spiking")) if flags & bit) for flags in range(8)
)
"""The names of the flags in a number of bits."""


def delay_ms(rtt_ms: float, processing_ms: float, queue: int) -> float:
    """One way and processing, in ms."""
    return 0.5 * rtt_ms + processing_ms * (1.0 + PER_ITEM * queue)


def delays_ms(vitals: Vitals, usual_ms: float) -> tuple[float, float]:
    """The delay at its worst, which the score is about, and the one now, in ms. `usual_ms` stands in for processing never measured."""
    if not vitals.samples and not vitals.processing_p95_ms:
        return delay_ms(vitals.rtt_p95_ms, usual_ms, vitals.queue), delay_ms(vitals.rtt_ms, usual_ms, vitals.queue)
    upper_ms = delay_ms(vitals.rtt_p95_ms, vitals.processing_p95_ms, vitals.queue)
    return upper_ms, delay_ms(vitals.rtt_ms, vitals.processing_ms, vitals.queue)


def score(delay: float, success: float, drift: float) -> float:
    """0 to 1000, less is better. `delay` in ms, the others are shares."""
    points = POINTS_PER_DECADE * math.log10(max(delay, DELAY_MS_MIN)) + FAILURE_POINTS * (1.0 - success) + DRIFT_POINTS * drift
    return min(max(points, 0.0), SCORE_MAX)


def flags(points: float, vitals: Vitals, now_delay_ms: float, baseline_ms: float) -> int:
    """Bits of SLOW, UNSTABLE and SPIKING. The baseline is the one from before this delay; 0 when there is none yet."""
    found = SLOW if points > SLOW_OVER else 0
    if vitals.drift > UNSTABLE_DRIFT_OVER or vitals.success < UNSTABLE_SUCCESS_UNDER:
        found |= UNSTABLE
    if baseline_ms and now_delay_ms > SPIKE_FACTOR * max(baseline_ms, DELAY_MS_MIN):
        found |= SPIKING
    return found


def next_baseline(baseline_ms: float, now_delay_ms: float) -> float:
    """The agent's own usual delay after one more heartbeat, in ms: a moving average that counts a spike as two baselines and no more.

    So a spike moves it by 6 % a heartbeat however high it is, and a delay that stays five times as long is the usual one after two minutes.
    """
    delay = max(now_delay_ms, DELAY_MS_MIN)
    if not baseline_ms:
        return delay
    return baseline_ms + BASELINE_PACE * (min(delay, SPIKE_FACTOR * baseline_ms) - baseline_ms)
