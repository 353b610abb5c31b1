"""How slow a trial's agents are made: delays by class, with jitter that has a heavy tail."""

import random

CLASS_TOTAL_MS = ((5.0, 20.0), (50.0, 150.0), (100.0, 300.0), (200.0, 500.0), (10.0, 400.0))
"""From classes A to E: least and most of an agent's own base total."""
WANDERING_CLASS, WANDER_SHARE = 4, 0.05
NETWORK_SHARE = 0.5
JITTER_MEDIAN_MS, JITTER_SIGMA = 2.0, 1.0
TAIL_PROBABILITY, TAIL_SCALE_MS, TAIL_ALPHA, TAIL_MS_MAX = 0.01, 20.0, 1.5, 1_000.0
WEIGHT_FACTOR = 0.5
"""The design's (§6): a message of weight 1 takes half as long again."""


class AgentDelays:
    """One agent's delays, the same for the same `dice`.

    - Its base total is drawn once, uniformly from its class's range: A 5-20 ms, B 50-150, C 100-300, D 200-500, E 10-400.
    - Half of the base is network, a quarter each way; the other half is processing, times 1 + 0.5 * weight.
    - Class E wanders: before each processing its base changes by up to 5 % either way, and stays within 10-400 ms.
    - To each sample, each way and each processing, jitter is added: lognormal with median 2 ms and sigma 1.0; and to one in a hundred, on top,
      a Pareto tail of scale 20 ms and alpha 1.5, at most 1 s.

    For example an agent of class C with a base of 200 ms has 50 ms each way, 100 ms of processing for weight 0 and 150 ms for weight 1, each
    plus about 2 ms, and now and then plus 20 ms or much more.
    """

    __slots__ = ("_dice", "_high_ms", "_low_ms", "_wanders", "base_ms")

    def __init__(self, agent_class: int, dice: random.Random) -> None:
        """`agent_class` counts from 0 for A to 4 for E."""
        self._low_ms, self._high_ms = CLASS_TOTAL_MS[agent_class]
        self._dice, self._wanders = dice, agent_class == WANDERING_CLASS
        self.base_ms = dice.uniform(self._low_ms, self._high_ms)

    def network_ms(self) -> float:
        """How long one frame takes, one way."""
        return self.base_ms * NETWORK_SHARE / 2 + self._jitter_ms()

    def processing_ms(self, weight: float) -> float:
        """How long one message of this payload weight (0 to 1) is prepared."""
        if self._wanders:
            changed_ms = self.base_ms * self._dice.uniform(1 - WANDER_SHARE, 1 + WANDER_SHARE)
            self.base_ms = min(max(changed_ms, self._low_ms), self._high_ms)
        return self.base_ms * (1 - NETWORK_SHARE) * (1.0 + WEIGHT_FACTOR * weight) + self._jitter_ms()

    def _jitter_ms(self) -> float:
        dice = self._dice
        jitter_ms = JITTER_MEDIAN_MS * dice.lognormvariate(0.0, JITTER_SIGMA)
        if dice.random() < TAIL_PROBABILITY:
            jitter_ms += min(TAIL_SCALE_MS * dice.paretovariate(TAIL_ALPHA), TAIL_MS_MAX)
        return jitter_ms
