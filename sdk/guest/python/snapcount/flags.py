"""The capability `flags`: behaviour that the node's operators switch on."""

from componentize_py_types import Err

from snapcount import Failure

try:
    from wit_world.imports import feature_flags as _host
except ImportError:
    raise ImportError("snapcount.flags needs the capability `flags`: name it in skill.toml") from None


def is_on(name: str) -> bool:
    """Whether a flag is on; one that nobody named is off. Raises Failure for what is no name."""
    try:
        return _host.is_on(name)
    except Err as error:
        raise Failure(error.value.code, error.value.message) from None
