"""A node's events as lines for people."""

import json
import time
from collections.abc import Iterator
from typing import Any

from host.core.text import safe

VALUE_CHARACTERS = 100
LINE_CHARACTERS = 400


def lines(event: dict[str, Any], skill: str = "") -> Iterator[str]:
    """What an event says; with `skill`, of calls only those of that one."""
    match event.get("event"):
        case "call" if not skill or event["skill"] == skill:
            yield from _call(event)
        case "dropped":
            yield f"… {event['count']} call(s) were too fast to show"
        case "watching" | "skills":
            active = ", ".join(f"{one['name']} {one['version']}" for one in event["skills"])
            yield f"active on the node: {active or 'nothing'}"


def _call(event: dict[str, Any]) -> Iterator[str]:
    at = time.strftime("%H:%M:%S", time.localtime(event["at_ms"] / 1000))
    answered = f"error {event['error']}: {event['detail']}" if event["error"] else _value(event["reply"])
    cost = f"{event['took_us']} µs, {event['fuel']} fuel" + (f", {event['host_calls']} host calls" if event["host_calls"] else "")
    yield safe(
        f"{at} {event['skill']} {event['version']} {event['hook']}({_value(event['request'])}) -> {answered}  [{cost}]", LINE_CHARACTERS
    )
    for one in event["logs"]:
        yield safe(f"         log {one['level']}: {one['line']}", LINE_CHARACTERS)
    for one in event["refusals"]:
        yield safe(f"         REFUSED {one['capability']}: {one['code']}: {one['message']}", LINE_CHARACTERS)
    if not event["whole"]:
        yield "         (what it asked the host was too much to show all of it)"


def _value(value: Any) -> str:
    """The beginning of a value as JSON, without the quotes of keys."""
    said = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    return said if len(said) <= VALUE_CHARACTERS else said[: VALUE_CHARACTERS - 1] + "…"
