"""The capability `state`: the skill's own keys and values, which outlive the call, the instance and the node's restart."""

from componentize_py_types import Err

try:
    from wit_world.imports import state as _host
except ImportError:
    raise ImportError("snapcount.state needs the capability `state`: name it in skill.toml") from None


class StateFull(Exception):
    """The quota is full, or the value too long; nothing was stored."""


def get(key: str) -> bytes | None:
    """The value; None where there is none."""
    return _host.get(key)


def set(key: str, value: bytes) -> None:
    """Stores a value; an empty one deletes the key. Raises StateFull."""
    try:
        _host.set(key, value)
    except Err:
        raise StateFull(key) from None
