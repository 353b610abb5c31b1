"""Any other capability that a driver of the node offers: request and reply are CBOR, which the skill makes and reads itself."""

from componentize_py_types import Err

from snapcount import Failure

try:
    from wit_world.imports import drivers as _host
except ImportError:
    raise ImportError("snapcount.drivers needs the capability of a driver: name it in skill.toml") from None


def ask(capability: str, request: bytes) -> bytes:
    """Raises Failure with the host's code where the driver, or the host, refuses."""
    try:
        return _host.ask(capability, request)
    except Err as error:
        raise Failure(error.value.code, error.value.message) from None
