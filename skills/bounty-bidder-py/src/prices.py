"""The price: cost and the wanted margin, or the reward when that is less; never below cost, never above the reward."""

from decimal import ROUND_CEILING, Decimal

STEP = Decimal("0.000001")
GRID_MAX = 2**53 / 1e6
"""From here on neighbouring floats are further apart than the grid's steps."""


def price_of(cost: float, margin: float, reward: float) -> tuple[float, bool] | None:
    """The price, and whether the whole margin is in it. None: the reward does not cover the cost."""
    if cost > reward:
        return None
    wanted = cost * (1 + margin)
    if wanted > reward:
        return reward, False
    return min(rounded_up(wanted), reward), True


def rounded_up(amount: float) -> float:
    """The least multiple of a millionth that is not below the amount, as its shortest decimal digits say it."""
    if amount >= GRID_MAX:
        return amount
    return float(Decimal(repr(amount)).quantize(STEP, rounding=ROUND_CEILING))
