"""A roll-out on a terminal: one line at each change, a table that lives, or the table once."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from host.core.text import safe

if TYPE_CHECKING:
    from rich.table import Table

STANDINGS = ("active", "pending", "failed", "declined", "offline", "reverting", "reverted")
DECISIONS_SHOWN = 8


def line(found: dict[str, Any]) -> str:
    """The roll-out in one line."""
    if "counts" not in found:
        return f"{found['id']}: {found['status']}"
    counts = " ".join(f"{standing} {found['counts'][standing]}" for standing in STANDINGS)
    stage = found["stage"]
    soak = f", soak left {stage['soak_left_s']} s" if stage["soak_left_s"] is not None else ""
    reason = f" ({safe(found['reason'])})" if found["reason"] else ""
    return f"{found['id']}: {found['status']}{reason}, stage {stage['name']} {stage['index'] + 1} of {len(found['stages'])}{soak}: {counts}"


def lines(found: dict[str, Any], sectors_max: int) -> list[str]:
    """All there is, for a pipe or a file."""
    shown = [line(found)]
    if "counts" not in found:
        return shown
    for name, groups in _groups(found, sectors_max):
        shown.append(f"  {name:24} " + " ".join(f"{standing} {groups[standing]:<6}" for standing in STANDINGS).rstrip())
    shown += [f"  excluded: {group['nodes']} node(s): {safe(group['reason'])}" for group in found["excluded"]["groups"]]
    shown += [
        f"  failed: {safe(failure['node'])}: {safe(failure['code'])} {safe(failure['message'])}".rstrip()
        for failure in found["failures"][:DECISIONS_SHOWN]
    ]
    shown += [f"  {_decision(row)}" for row in found["decisions"][:DECISIONS_SHOWN]]
    return shown


def follow_lines(states: Iterable[dict[str, Any]], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Tells of each state; the last one."""
    found: dict[str, Any] = {}
    for found in states:
        tell(found)
    return found


def follow_live(states: Iterable[dict[str, Any]], sectors_max: int) -> dict[str, Any]:
    """A table that is drawn anew at each state; the last one."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    found: dict[str, Any] = {}
    with Live(console=Console(), transient=True, auto_refresh=False) as live:
        for found in states:
            if "counts" in found:
                decisions = "\n".join(_decision(row) for row in found["decisions"][:DECISIONS_SHOWN])
                live.update(Group(Text(line(found)), _table(found, sectors_max), Text(decisions)), refresh=True)
    return found


def _table(found: dict[str, Any], sectors_max: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    drawn = Table("", *STANDINGS)
    for name, groups in _groups(found, sectors_max):
        drawn.add_row(Text(name), *(str(groups[standing]) for standing in STANDINGS))
    return drawn


def _groups(found: dict[str, Any], sectors_max: int) -> list[tuple[str, dict[str, int]]]:
    """Every generation, and of the sectors those with most to look at."""
    generations = [(f"generation {safe(name)}", group) for name, group in found["by_generation"].items()]
    sectors = sorted(found["by_sector"].items(), key=lambda item: (-item[1]["failed"], -item[1]["pending"], -item[1]["offline"], item[0]))
    shown = [(f"sector {safe(name, 40) or '(none)'}", group) for name, group in sectors[:sectors_max]]
    if len(sectors) > sectors_max:
        rest = {standing: sum(group[standing] for _, group in sectors[sectors_max:]) for standing in STANDINGS}
        shown.append((f"{len(sectors) - sectors_max} other sectors", rest))
    return generations + shown


def _decision(row: dict[str, Any]) -> str:
    what = " ".join(safe(str(row[field]), 120) for field in ("kind", "node", "reason") if row.get(field))
    return f"{row['seq']}: {what}"
