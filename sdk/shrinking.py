"""Makes a request smaller as long as it still shows what it shows: fewer items, absent keys, shorter names, rounder numbers."""

import copy
import json
import math
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

TRIES_MAX = 4_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def shrink(request: dict[str, Any], shows: Callable[[dict[str, Any]], bool], *, seconds: float = math.inf) -> dict[str, Any]:
    """The smallest request found by greedy steps, as dicts and lists, in about the time given. `shows` is false for a request that is not sound, too."""
    until = time.monotonic() + seconds
    best, tries = request, 0
    again = True
    while again:
        again = False
        for candidate in _candidates(best):
            if _weight(candidate) >= _weight(best):
                continue
            tries += 1
            if tries > TRIES_MAX or time.monotonic() > until:
                return best
            if shows(candidate):
                best, again = candidate, True
                break
    return best


def _weight(value: Any) -> tuple[int, int, float]:
    """Smaller is simpler: fewer values, then fewer characters, then smaller numbers."""
    leaves = list(_leaves(value))
    return len(leaves), sum(len(_shown(leaf)) for leaf in leaves), sum(abs(float(leaf)) for leaf in leaves if isinstance(leaf, int | float))


def _shown(leaf: Any) -> str:
    return b64encode(leaf).decode() if isinstance(leaf, bytes) else json.dumps(leaf)


def _leaves(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for inner in value.values():
                yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
            yield 0  # so that an empty list is not for free
        case leaf:
            yield leaf


def _candidates(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Simpler requests, the boldest steps first."""
    paths = list(_paths(request, ()))
    for path, value in paths:
        if isinstance(value, list):
            for kept in _shorter(value):
                yield _with(request, path, kept)
    for path, _ in paths:
        if isinstance(path[-1], str):
            yield _without(request, path)
    for text in sorted({value for _, value in paths if isinstance(value, str)}, key=len, reverse=True):
        for short in ("", *LETTERS[:8], text[: len(text) // 2], text[len(text) // 2 :]):
            yield _renamed(request, text, short)
    for path, value in paths:
        for simple in _simpler(value):
            yield _with(request, path, simple)


def _paths(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if path:
        yield path, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _paths(inner, (*path, key))


def _shorter(items: list[Any]) -> Iterator[list[Any]]:
    half = len(items) // 2
    if half > 0:
        yield items[:half]
        yield items[half:]
    for index in range(len(items)):
        yield items[:index] + items[index + 1 :]


def _simpler(value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield False
        case int():
            yield from (0, 1, value // 2, value - 1)
        case float():
            yield from (0.0, 1.0, 2.0, 10.0, 100.0, float(round(value)) if abs(value) < 1e15 else value)
            yield from (float(f"{value:.{digits}g}") for digits in range(1, 7))
        case bytes():
            yield from (b"", bytes(len(value)), value[: len(value) // 2])


def _with(request: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(request)
    holder = _holder(made, path)
    holder[path[-1]] = value
    return made


def _without(request: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    made = copy.deepcopy(request)
    del _holder(made, path)[path[-1]]
    return made


def _holder(made: Any, path: tuple[str | int, ...]) -> Any:
    """What holds the last step of a path."""
    for step in path[:-1]:
        made = made[step]
    return made


def _renamed(value: Any, old: str, new: str) -> Any:
    """The request with one text replaced wherever it stands, so that what names the same thing still does."""
    match value:
        case dict():
            return {key: _renamed(inner, old, new) for key, inner in value.items()}
        case list():
            return [_renamed(inner, old, new) for inner in value]
        case _:
            return new if value == old and isinstance(value, str) else value
