"""From what an operator writes on a command line to a roll-out document: durations such as 7d, windows such as mon-fri 22:00-04:00, and waves."""

import re
from collections.abc import Sequence

import msgspec

from host.core.errors import UsageError
from host.core.text import safe
from registry.rollout_document import Action, Rollout, Stage, Window, default_stages, emergency_stages

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+) )?(?P<h1>\d\d):(?P<m1>\d\d)-(?P<h2>\d\d):(?P<m2>\d\d)\Z")


def seconds(text: str) -> int:
    """`90s`, `30m`, `12h`, `7d`, or seconds without a unit. Raises UsageError."""
    found = re.match(r"(\d{1,9})([smhd]?)\Z", text)
    if not found:
        raise UsageError(f"expected a time such as 90s, 30m, 12h or 7d, found {safe(text, 40)!r}")
    return int(found[1]) * _UNITS_S[found[2] or "s"]


def window(text: str) -> Window:
    """`22:00-04:00` for every day, `mon-fri 22:00-04:00` or `sat,sun 08:00-20:00`; UTC. Raises UsageError."""
    found = _WINDOW.match(text.strip().lower())
    try:
        if not found:
            raise ValueError("not of this form")
        days = tuple(range(7)) if found["days"] is None else _days(found["days"])
        start, end = (_minutes(found[f"h{i}"], found[f"m{i}"]) for i in (1, 2))
        return msgspec.convert({"days": days, "start_min": start, "end_min": end}, Window)
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"expected a window in UTC such as 'mon-fri 22:00-04:00', found {safe(text, 60)!r}: {safe(str(error))}") from error


def stages(
    waves: Sequence[str],
    soak: str,
    wave_soak: str,
    *,
    emergency: bool,
    min_sample: int | None,
    success_min: float | None,
    error_max: float | None,
) -> tuple[Stage, ...]:
    """`waves` are shares (0.1, 10%) or numbers of nodes (25), the first is the canary; empty for the default ones. Raises UsageError."""
    made = [_wave(index, text) for index, text in enumerate(waves)] or [
        {"name": s.name, "share": s.share, "soak_s": s.soak_s} for s in (emergency_stages() if emergency else default_stages())
    ]
    thresholds = {"min_sample": min_sample, "success_min": success_min, "error_max": error_max}
    for index, stage in enumerate(made):
        given = soak if index == 0 else wave_soak
        if given:
            stage["soak_s"] = seconds(given)
        elif waves:
            stage["soak_s"] = _usual_soak_s(index, len(made), emergency)
        stage.update({name: value for name, value in thresholds.items() if value is not None})
    try:
        return msgspec.convert(made, tuple[Stage, ...])
    except msgspec.ValidationError as error:
        raise UsageError(f"stages: {safe(str(error))}") from error


def document(fields: dict[str, object]) -> Rollout:
    """The document. Raises UsageError that names the field which is not sound."""
    try:
        # Through plain values, since only their conversion checks every bound.
        return msgspec.convert(msgspec.to_builtins(fields), Rollout)
    except msgspec.ValidationError as error:
        raise UsageError(f"roll-out: {safe(str(error))}") from error


def action(id: str, name: str, at_ms: int, nonce: bytes, reason: str) -> Action:
    """The action document. Raises UsageError that names the field which is not sound."""
    try:
        return msgspec.convert({"id": id, "action": name, "at_ms": at_ms, "nonce": nonce, "reason": reason}, Action)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {safe(str(error))}") from error


def _wave(index: int, text: str) -> dict[str, object]:
    name = "canary" if index == 0 else f"wave-{index}"
    found = re.match(r"(\d+(?:\.\d+)?)(%?)\Z", text.strip())
    if not found:
        raise UsageError(f"expected a wave such as 10%, 0.1 or 25 (nodes), found {safe(text, 40)!r}")
    number = float(found[1])
    if found[2]:
        return {"name": name, "share": number / 100}
    if "." in found[1] or number == 0:
        return {"name": name, "share": number}
    return {"name": name, "count": int(number)}


def _usual_soak_s(index: int, count: int, emergency: bool) -> int:
    first, *_, last = emergency_stages() if emergency else default_stages()
    if index == 0:
        return first.soak_s
    return last.soak_s if emergency or index == count - 1 else default_stages()[1].soak_s


def _days(text: str) -> tuple[int, ...]:
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        start, end = _DAYS.index(first), _DAYS.index(last or first)
        days += [(start + offset) % 7 for offset in range((end - start) % 7 + 1)]
    return tuple(days)


def _minutes(hours: str, minutes: str) -> int:
    if int(minutes) > 59:
        raise ValueError(f"there is no minute {minutes}")
    return int(hours) * 60 + int(minutes)
