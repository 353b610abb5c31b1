"""What a skill is made to do when it is measured: the calls of a vector, of a case of the contract, or of a request that is made up."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec

from host.core import cbor
from host.core.errors import MalformedData, UsageError
from host.core.manifest import Manifest
from host.plugins.contract import SHAPES, PlanSettings
from host.plugins.streaming import CHUNK_BYTES, plan
from host.sandbox.skill import SkillInstance
from sdk import samples, vectors
from sdk.project import Project
from sdk.vectors import Vector

PROGRAM_BYTES = 2 * CHUNK_BYTES
"""A program is made this long: what a call needs depends on how full its chunk is, and the programs of vectors are short."""


Step = Callable[[float], None]
"""Told the share that is done."""


class Instances(Protocol):
    def __call__(self) -> SkillInstance:
        """The instance for the next hook call: a new one for a fresh skill."""
        ...


@dataclass(frozen=True)
class Script:
    """The calls of `before`, and then the one, or the program, that is measured. `made_up` says that nobody wrote it."""

    name: str
    hook: str
    before: tuple[bytes, ...] = ()
    request: bytes = b""
    program: bytes = b""
    settings: PlanSettings | None = None
    run: bool = False
    made_up: bool = False

    def play(self, instances: Instances, skill: str) -> None:
        """Makes the calls. Raises whatever they do."""
        for request in self.before:
            instances().call(self.hook, request)
        if self.settings is not None:
            plan(instances(), [self.program], self.settings, self.run, skill)
        else:
            instances().call(self.hook, self.request)


def of_vector(path: Path, vector: Vector) -> Script:
    """Raises MalformedData for a vector that does not fit the contract, UsageError for a program that is missing."""
    if vector.hook == "plan_job":
        try:
            program = (path.parent / vector.program_file).read_bytes() if vector.program_file else vector.program.encode()
            return Script(path.stem, vector.hook, program=program, settings=msgspec.convert(vector.settings, PlanSettings), run=vector.run)
        except msgspec.ValidationError as error:
            raise MalformedData(f"{path}: settings: {error}") from error
        except OSError as error:
            raise UsageError(f"{path}: program_file: {error.strerror}") from error
    *before, request = (cbor.encode(one) for one in vectors.requests(vector, path.name))
    return Script(path.stem, vector.hook, tuple(before), request)


def of_project(project: Project) -> list[Script]:
    """One for each vector."""
    return [of_vector(path, vector) for path, vector in vectors.load(project.vectors)]


def of_contract(manifest: Manifest) -> list[Script]:
    """Sound requests of the contract's own cases (sdk/contract/vectors) for each hook that a module has: for one that stands alone."""
    from sdk import conformance

    found = []
    for hook, file in conformance.load().items():
        for case in file.cases if hook in manifest.hooks else ():
            if case.expect == "answer":
                found.append(Script(f"{hook}: {case.name}", hook, request=bytes.fromhex(case.cbor)))
    return found


def made_up(manifest: Manifest, written: list[Script], count: int, seed: int) -> Iterator[Script]:
    """`count` requests for each hook, most of them changes of those that somebody wrote, every other one as long as its type allows; and the programs of
    `plan_job` again, as long as PROGRAM_BYTES.
    """
    rng = random.Random(seed)
    for hook in manifest.hooks:
        known = [script for script in written if script.hook == hook and script.request]
        if hook not in SHAPES or hook == "self_test":
            continue
        shape = SHAPES[hook][0]
        corpus = [samples.plain(cbor.decode_struct(script.request, shape, script.name)) for script in known]
        for number in range(count):
            found = samples.made_up(shape, corpus, rng, samples.BOLD if number % 2 else samples.MODEST)
            request = None if found is None else samples.sound(shape, found[1])
            if found is not None and request is not None:
                before = () if found[0] is None else known[found[0]].before
                yield Script(f"{hook}, made up {number + 1}", hook, before, cbor.encode(request), made_up=True)
    yield from (_longer(script) for script in written if script.program and len(script.program) < PROGRAM_BYTES)


def _longer(script: Script) -> Script:
    times = -(-PROGRAM_BYTES // (len(script.program) + 1))
    program = ((script.program + b"\n") * times)[:PROGRAM_BYTES]
    return replace(script, name=f"{script.name}, repeated", program=program, made_up=True)
