"""When a roll-out has gone wrong: the thresholds of a stage against what its nodes report.

A rate is failures over all nodes that were told and are reachable, also those that have not decided: failures come faster than successes, which wait for
the end of a probation, so over those decided alone the first failure would be 100 %. It is crossed when it is crossed whatever the undecided do.
"""

from registry.rollout_document import Stage
from registry.roster import ALL, Key, Roster, Tally


def crossed(roster: Roster, stage: Stage, stage_index: int) -> str:
    """Why the roll-out has to stop; empty when it need not."""
    total = roster.tally(ALL)
    needed = min(stage.min_sample, len(roster.ready) + total.touched)
    if total.touched >= max(needed, 1) and _rate(total) > stage.error_max:
        return _says("all stages", total, stage.error_max)
    cohort = roster.tally(("stage", stage_index))
    if cohort.touched >= stage.min_sample and _rate(cohort) > stage.error_max:
        return _says(f"stage {stage.name}", cohort, stage.error_max)
    for key, tally in roster.tallies.items():
        if tally.failed and key[0] in ("generation", "sector"):
            limit = _stratum_limit(key, tally, stage, roster.sizes)
            if _rate(tally) > limit:
                return _says(f"{key[0]} {key[1] or '(none)'}", tally, limit)
    return ""


def _stratum_limit(key: Key, tally: Tally, stage: Stage, sizes: dict[int, int]) -> float:
    """A generation that reached the stage's own sample is held to the stage's own threshold. One with few nodes at all is judged by those it has."""
    kind, generation = key
    if kind == "generation" and isinstance(generation, int):
        if tally.touched >= stage.min_sample:
            return stage.error_max
        return stage.stratum_error_max if tally.touched >= min(stage.stratum_min_sample, sizes[generation]) else 1.0
    return stage.stratum_error_max if tally.touched >= stage.stratum_min_sample else 1.0


def _rate(tally: Tally) -> float:
    return tally.failed / tally.touched if tally.touched else 0.0


def _says(where: str, tally: Tally, limit: float) -> str:
    return f"{where}: {tally.failed} of {tally.touched} nodes failed, more than {limit:.0%}"
