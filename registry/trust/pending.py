"""A change that waits for signatures: a file which travels from holder to holder, by stick or by mail.

It carries the next metadata of one role, the metadata that it follows, and who is asked to sign. Each holder reads what it changes, signs on their own
machine, and hands it on, or back. The file itself decides nothing: the registry checks every signature against the roles it has published.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from nacl.signing import SigningKey
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import SerializationError

from host.core import files, keys
from host.core.errors import MalformedData, SignatureInvalid, TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from registry.trust.signer import Holder, PyNaClSigner, holder_of, key_id

FORMAT = "snapcount pending change 1"
DEPTH_MAX = 16
Text = Annotated[str, Meta(max_length=300)]
Named = Annotated[str, Meta(max_length=128)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`threshold` of these must sign: public keys by the names of their holders."""

    threshold: Annotated[int, Meta(ge=1, le=64)]
    keys: Annotated[dict[Named, str], Meta(max_length=64)]

    def holders(self) -> list[Holder]:
        return [Holder(safe(name, 64), keys.parse_public(text, "pending change: keys")) for name, text in self.keys.items()]


class Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The travelling file. `base` and `next` are TUF metadata; `asked` has two entries where a new root needs old and new holders.

    `leave` says that new targets are published even where a lane is not signed by its new keys yet. The registry goes by its own copy.
    """

    format: Literal["snapcount pending change 1"]
    role: Literal["root", "targets", "safety", "productivity"]
    about: Text
    asked: Annotated[tuple[Asked, ...], Meta(min_length=1, max_length=2)]
    base: dict[str, Any] | None
    next: dict[str, Any]
    leave: bool = False

    @property
    def metadata(self) -> Metadata[Any]:
        return _metadata(self.next, self.role)

    @property
    def version(self) -> int:
        return int(self.metadata.signed.version)

    def signers(self) -> list[Holder]:
        """Those of the asked whose signatures are here, and valid."""
        metadata = self.metadata
        everybody = {key_id(holder.key): holder for asked in self.asked for holder in asked.holders()}
        return [holder for keyid, holder in everybody.items() if keyid in metadata.signatures and _valid(metadata, holder)]

    def missing(self) -> list[str]:
        """In words, for each group: how many of whom must still sign. Empty when all have."""
        signed = {key_id(holder.key) for holder in self.signers()}
        lines: list[str] = []
        for asked in self.asked:
            waiting = [holder for holder in asked.holders() if key_id(holder.key) not in signed]
            lacking = asked.threshold - (len(asked.keys) - len(waiting))
            if lacking > 0:
                lines.append(f"{lacking} more of {', '.join(holder.name for holder in waiting)}")
        return lines

    def signed_with(self, key: SigningKey) -> "Pending":
        """With one more signature. Raises UsageError where this key is not asked for, or has signed already."""
        keyid = key_id(key.verify_key)
        asked = {key_id(holder.key) for group in self.asked for holder in group.holders()}
        names = ", ".join(sorted({name for group in self.asked for name in group.keys}))
        if keyid not in asked:
            raise UsageError(f"{self.role}: {keys.public_text(key.verify_key)[:20]}… is not asked to sign this; asked are {safe(names)}")
        metadata = self.metadata
        if keyid in metadata.signatures:
            raise UsageError(f"{self.role}: this key has signed it already")
        metadata.sign(PyNaClSigner(key), append=True)
        return msgspec.structs.replace(self, next=metadata.to_dict())

    def merged(self, other: "Pending") -> "Pending":
        """With the valid signatures of another copy. Raises UsageError where the copy is of another change, SignatureInvalid for a bad one."""
        if other.role != self.role or other.next["signed"] != self.next["signed"]:
            raise UsageError(f"{self.role}: the file is not a copy of the change that is pending here; sign that one instead")
        ours, theirs = self.metadata, other.metadata
        asked = {key_id(holder.key): holder for group in self.asked for holder in group.holders()}
        for keyid, signature in theirs.signatures.items():
            if keyid not in asked:
                continue  # somebody who was asked before the keys changed
            if not _valid(theirs, asked[keyid]):
                raise SignatureInvalid(f"{self.role}: the signature by {asked[keyid].name} in that file is wrong; ask for a new one")
            ours.signatures[keyid] = signature
        return msgspec.structs.replace(self, next=ours.to_dict())

    def changes(self, key: SigningKey | None = None) -> list[str]:
        """What a signature would put in force, line by line.

        The difference to the version before is shown only to a holder whose own signature proves that version; everybody else reads the whole.
        """
        names = {key_id(holder.key): holder.name for group in self.asked for holder in group.holders()}
        after = dict(_facts(self.next["signed"], names))
        before: dict[str, str] = {}
        if self.base is not None and key is not None and _valid(_metadata(self.base, self.role), Holder("", key.verify_key)):
            before = dict(_facts(self.base["signed"], names))
        gone = [f"- {name}: {value}" for name, value in before.items() if name not in after]
        added = [f"+ {name}: {value}" for name, value in after.items() if name not in before]
        changed = [f"~ {name}: {before[name]} → {value}" for name, value in after.items() if before.get(name, value) != value]
        return [safe(line, 400) for line in (*gone, *changed, *added)]

    def save(self, path: Path) -> None:
        files.write_atomic(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load(path: Path) -> Pending:
    """Raises UsageError, TooLarge or MalformedData."""
    try:
        with path.open("rb") as file:
            raw = file.read(DEFAULT.trust_pending_bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > DEFAULT.trust_pending_bytes_max:
        raise TooLarge(f"{path}: a pending change has at most {DEFAULT.trust_pending_bytes_max} bytes")
    try:
        pending = msgspec.json.decode(raw, type=Pending)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedData(f"{path}: not a pending change: {safe(str(error))}") from error
    try:
        _ = pending.metadata.signed_bytes
    except SerializationError as error:  # a fraction, or nested too deeply: nobody could sign it
        raise MalformedData(f"{path}: cannot be signed: {safe(str(error.__cause__))}") from error
    return pending


def asked_of(*groups: tuple[Root | Targets, str]) -> tuple[Asked, ...]:
    """Who signs `role`, as each of these delegators says; two that say the same are one."""
    found: list[Asked] = []
    for delegator, role in groups:
        rule = delegator.get_delegated_role(role)
        named: dict[str, str] = {}
        for holder in _holders(delegator, rule.keyids):
            name = holder.name if holder.name not in named else f"{holder.name} {bytes(holder.key).hex()[:6]}"
            named[name] = keys.public_text(holder.key)
        asked = Asked(rule.threshold, named)
        if asked not in found:
            found.append(asked)
    return tuple(found)


def _holders(delegator: Root | Targets, keyids: list[str]) -> list[Holder]:
    return [holder_of(delegator.get_key(keyid)) for keyid in keyids]


def _metadata(value: dict[str, Any], role: str) -> Metadata[Any]:
    kind: type[Root] | type[Targets] = Root if role == Root.type else Targets
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(json.dumps(value).encode())
    except Exception as error:  # whatever tuf finds wrong with a file that came from elsewhere
        raise MalformedData(f"{role}: not TUF metadata: {safe(f'{error} ({error.__cause__})')}") from error
    if not isinstance(metadata.signed, kind):
        raise MalformedData(f"{role}: expected metadata of type {kind.type}, found {metadata.signed.type}")
    return metadata


def _valid(metadata: Metadata[Any], holder: Holder) -> bool:
    key = holder.tuf_key()
    signature = metadata.signatures.get(key.keyid)
    if signature is None:
        return False
    try:
        key.verify_signature(signature, metadata.signed_bytes)
    except Exception:  # of any kind: it does not verify
        return False
    return True


def _facts(value: Any, names: dict[str, str], at: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every leaf of a document with its place; key ids are followed by their holders' names."""
    if depth > DEPTH_MAX:
        raise MalformedData(f"{at[:40]}: nested more than {DEPTH_MAX} deep, which no metadata of ours is; do not sign it")
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _facts(inner, names, f"{at} {_named(name, names)}".strip(), depth + 1)
    elif isinstance(value, list) and value and all(isinstance(inner, str) for inner in value):
        yield at, ", ".join(_named(inner, names) for inner in value)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _facts(inner, names, f"{at} {inner.get('name', index) if isinstance(inner, dict) else index}", depth + 1)
    else:
        yield at, json.dumps(value)


def _named(text: str, names: dict[str, str]) -> str:
    return f"{names[text]} ({text[:12]}…)" if text in names else text
