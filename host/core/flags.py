"""Feature flags: which optional behaviour is on, as the node's desired state says. A skill asks through `call` with the capability `flags`."""

from collections.abc import Collection

import msgspec

from host.core import cbor
from host.core.manifest import HookName


class FlagRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for one flag by its name."""

    flag: HookName


class FlagReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A flag that nobody named is off."""

    on: bool


def answer(request: bytes, on: Collection[str]) -> bytes:
    """The reply's CBOR. `on` are the flags that are on. Raises MalformedData, TooLarge."""
    asked = cbor.decode_struct(request, FlagRequest, "request for flags", bytes_max=256)
    return cbor.encode(FlagReply(asked.flag in on))
