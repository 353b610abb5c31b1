"""The streaming hook `plan_job`: one hook call and one fresh instance, made of one wasm call for each chunk."""

from collections.abc import Iterable, Iterator
from os import SEEK_END
from typing import BinaryIO, Protocol

import msgspec

from host.core import cbor
from host.core.errors import MalformedData, ReplyInvalid, TooLarge
from host.core.limits import DEFAULT
from host.plugins.contract import PlanJobRequest, PlanProgress, PlanReport, PlanSettings

CHUNK_BYTES = 256 << 10


class Callee(Protocol):
    """What is asked of an instance here."""

    def call(self, hook: str, request: bytes) -> bytes: ...


def plan(instance: Callee, program: Iterable[bytes], settings: PlanSettings, run: bool, skill: str) -> PlanReport:
    """Feeds the program and returns the report. Raises GuestError, TooLarge for an endless program."""
    total = 0
    for seq, (chunk, last) in enumerate(_chunks(program)):
        total += len(chunk)
        if total > DEFAULT.program_bytes_max:
            raise TooLarge(f"{skill}: a program has at most {DEFAULT.program_bytes_max} bytes")
        request = PlanJobRequest(chunk=chunk, last=last, run=run, seq=seq, settings=settings)
        reply = instance.call("plan_job", cbor.encode(request))
        try:
            if last:
                return cbor.decode_struct(reply, PlanReport, f"{skill}: plan_job report", bytes_max=DEFAULT.reply_bytes_max)
            cbor.decode_struct(reply, PlanProgress, f"{skill}: plan_job progress")
        except (MalformedData, TooLarge) as error:
            raise ReplyInvalid(str(error)) from error
    raise AssertionError("the last chunk returns")


def with_tail(settings: PlanSettings, program: BinaryIO) -> PlanSettings:
    """The settings with the end of a seekable program, in which a planner finds limits that stand after the moves. The position is kept."""
    position = program.tell()
    program.seek(0, SEEK_END)
    program.seek(max(0, program.tell() - DEFAULT.program_tail_bytes))
    tail = program.read(DEFAULT.program_tail_bytes)
    program.seek(position)
    return msgspec.structs.replace(settings, tail=tail)


def _chunks(program: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most CHUNK_BYTES, and whether each is the last. An empty program is one empty chunk."""
    held: bytes | None = None
    for piece in program:
        for start in range(0, len(piece), CHUNK_BYTES):
            if held is not None:
                yield held, False
            held = piece[start : start + CHUNK_BYTES]
    yield held or b"", True
