"""One real call as it is kept: everything that a replay of it needs, and the file in which records travel.

A record is deterministic CBOR, and its id is the beginning of its SHA-256: whoever has the id can tell whether it is the record. A file holds records as byte
strings beside their ids, so that one that was changed, or broken on the way, is refused before anything is made of it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from host.core import cbor
from host.core.errors import Incompatible, MalformedData, TooLarge
from host.core.fleet import Digest
from host.core.limits import DEFAULT
from host.core.manifest import SEMVER, HookName, Lineage, Name, SkillLimits
from host.core.text import safe
from host.plugins.observed import Call
from host.sandbox.imports import HostCall

FORMAT, VERSION = "snapcount calls", 1
ID_BYTES = 8
ENDED_AT_A_LIMIT = frozenset({"fuel_exhausted", "deadline_exceeded", "memory_exceeded", "host_calls_exceeded"})
THE_SKILLS_OWN = ENDED_AT_A_LIMIT | {"guest_trap", "reply_invalid", "skill_refused"}
"""How a call can end by the skill's own doing. What else ends one, such as a quarantine or a full node, says nothing of the skill and is not recorded."""

Text = Annotated[str, Meta(max_length=1024)]
Natural = Annotated[int, Meta(ge=0, le=1 << 53)]


class CallRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One hook call of one node. `request` and `reply` are CBOR as in `Call`; without a reply, `error` says why.

    `capabilities` were granted, `limits` in force. `host_calls` are what the guest asked of its host, in order, without what it logged. `program` has the
    pieces that `plan_job` was given.
    """

    node: Name
    skill: Name
    version: Annotated[str, Meta(pattern=SEMVER, max_length=128)]
    lineage: Lineage
    digest: Digest
    hook: HookName
    began_ms: Natural
    took_us: Natural
    fuel: Natural
    capabilities: Annotated[tuple[HookName, ...], Meta(max_length=32)]
    limits: SkillLimits
    request: bytes
    reply: bytes | None
    error: Annotated[str, Meta(max_length=64)]
    skill_code: Annotated[str, Meta(max_length=64)]
    detail: Text
    host_calls: tuple[HostCall, ...]
    program: tuple[bytes, ...]

    @property
    def outcome(self) -> str:
        """`reply`, or how it ended without one."""
        return outcome(self.reply, self.error, self.skill_code)


def outcome(reply: bytes | None, error: str, skill_code: str) -> str:
    """How a call ended: `reply`, the skill's own refusal with its code, or the code of the error."""
    if reply is not None:
        return "reply"
    return f"refused: {safe(skill_code, 64)}" if skill_code else safe(error, 64)


def recordable(call: Call) -> bool:
    """Whether a replay can tell anything: it ended by the skill's own doing, and all that went into it is at hand."""
    return call.whole and bool(call.request) and (call.reply is not None or call.error in THE_SKILLS_OWN)


def encode(node: str, call: Call) -> bytes:
    """The record of a call on this node. Raises TooLarge over `call_record_bytes_max`."""
    record = CallRecord(
        node=node, skill=call.skill, version=call.version, lineage=call.lineage, digest=call.digest, hook=call.hook, began_ms=call.began_ms,
        took_us=call.took_us, fuel=call.fuel, capabilities=call.manifest.capabilities, limits=call.limits, request=call.request, reply=call.reply,
        error=call.error, skill_code=call.skill_code, detail=call.detail,
        host_calls=tuple(one for one in call.host_calls if one.name != "log"), program=call.program,
    )  # fmt: skip
    data = cbor.encode(record)
    if len(data) > DEFAULT.call_record_bytes_max:
        raise TooLarge(f"{call.skill}: a record has at most {DEFAULT.call_record_bytes_max} bytes, this one has {len(data)}")
    return data


def decode(data: bytes, what: str) -> CallRecord:
    """Raises MalformedData that names the field, TooLarge."""
    return cbor.decode_struct(data, CallRecord, what, bytes_max=DEFAULT.call_record_bytes_max)


def id_of(data: bytes) -> str:
    """The id of an encoded record: 16 hexadecimal digits."""
    return hashlib.sha256(data).digest()[:ID_BYTES].hex()


def to_file(records: Iterable[bytes]) -> bytes:
    """A file of encoded records. Raises TooLarge over `calls_file_bytes_max`."""
    data = cbor.encode({"calls": [[bytes.fromhex(id_of(each)), each] for each in records], "format": FORMAT, "version": VERSION})
    if len(data) > DEFAULT.calls_file_bytes_max:
        raise TooLarge(f"a file of calls has at most {DEFAULT.calls_file_bytes_max} bytes, these have {len(data)}; export fewer at a time")
    return data


def from_file(data: bytes, what: str) -> list[tuple[str, CallRecord]]:
    """The records of a file, with their ids.

    Raises MalformedData for what is no such file, and for a record that was changed; Incompatible for a version that this host cannot read; TooLarge.
    """
    held = cbor.decode(data, what, bytes_max=DEFAULT.calls_file_bytes_max)
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise MalformedData(f"{what}: not a file of calls; `snapcount node calls export` makes one")
    if held.get("version") != VERSION:
        raise Incompatible(f"{what}: a file of calls of version {safe(str(held.get('version')), 20)}; this host reads version {VERSION}")
    return list(_records(held.get("calls"), what))


def _records(held: Any, what: str) -> Iterator[tuple[str, CallRecord]]:
    if not isinstance(held, list):
        raise MalformedData(f"{what}: `calls` is not a list")
    for number, one in enumerate(held, 1):
        match one:
            case [bytes() as id_, bytes() as data]:
                if id_of(data) != id_.hex():
                    raise MalformedData(
                        f"{what}: record {number}: its bytes are not those of the call {id_.hex()[:16]}; the file was changed"
                    )
                yield id_.hex(), decode(data, f"{what}: record {number}")
            case _:
                raise MalformedData(f"{what}: record {number}: expected an id and the record's bytes")
