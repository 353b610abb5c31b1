"""Every shape of the contract through the decoder and the encoder of the Rust and AssemblyScript libraries, beside the host's own."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host.core import cbor
from host.core.bundle import UnverifiedBundle, with_manifest
from host.core.errors import MalformedData, MemoryExceeded, SkillRefused, TooLarge
from host.plugins import contract
from host.plugins.contract import HandleReply, HandleRequest, Shape
from host.sandbox.skill import SkillInstance
from sdk import project, samples
from sdk.bindings import made
from sdk.bindings.described import shapes
from sdk.build import build
from sdk.local import LocalSkill

# Neither choices between shapes nor what a driver or a flag is asked with, whose `op` and pattern the host alone reads.
NAMES = tuple(shape.name for shape in shapes() if not shape.name.startswith(("Motion", "Flag")) or shape.name == "MotionReply")
HOST_NAMES = {"ElementAssay": "Constituent", "ImpurityCeiling": "Impurity", "ProductVerdict": "ProductAssessment", "BidNode": "BidderNode"}
MANIFEST = """
[skill]
name = "round"
version = "1.0.0"
hooks = ["handle"]
[limits]
memory_bytes = 16777216
fuel = 1000000000
reply_bytes = 65536
[build]
lang = "{lang}"
source = "main.{extension}"
"""
# The topic names a shape; the payload is decoded as it, and goes back encoded.
RUST = """
use snapcount::{{contract::*, decode, encode, export, fail, Bytes, Decode, Encode, Failure}};

export!(handle);

fn round<T: Decode + Encode>(bytes: &Bytes) -> Result<Bytes, Failure> {{
    encode(&decode::<T>(bytes)?)
}}

fn handle(request: HandleRequest) -> Result<HandleReply, Failure> {{
    let payload = match request.topic.as_str() {{
{arms}
        _ => return fail("unknown", request.topic),
    }};
    Ok(HandleReply {{ handled: true, payload: payload?, ..Default::default() }})
}}
"""
ASSEMBLYSCRIPT = """
import * as snapcount from "snapcount";

function round<T>(bytes: Uint8Array): Uint8Array {{
  const shape = snapcount.decode<T>(bytes);
  return snapcount.failed() ? bytes : snapcount.encode<T>(shape);
}}

export function handle(request: snapcount.HandleRequest): snapcount.HandleReply {{
  const reply = new snapcount.HandleReply();
  const topic = request.topic;
  reply.handled = true;
{arms}
  return reply;
}}
"""


def source(lang: str) -> str:
    if lang == "rust":
        return RUST.format(arms="\n".join(f'        "{name}" => round::<{name}>(&request.payload),' for name in NAMES))
    arms = "\n".join(f'  if (topic == "{name}") reply.payload = round<snapcount.{name}>(request.payload);' for name in NAMES)
    return ASSEMBLYSCRIPT.format(arms=arms)


@pytest.fixture(scope="module", params=["rust", "assemblyscript"])
def compiled(request: pytest.FixtureRequest, require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    require(request.param)
    folder: Path = tmp_path_factory.mktemp(request.param)
    extension = {"rust": "rs", "assemblyscript": "ts"}[request.param]
    (folder / f"main.{extension}").write_text(source(request.param))
    (folder / "skill.toml").write_text(MANIFEST.format(lang=request.param, extension=extension))
    return build(project.load(folder)).read_bytes()


@pytest.fixture(scope="module")
def guest(compiled: bytes) -> LocalSkill:
    return LocalSkill(compiled, "round")


def struct(name: str) -> type[Shape]:
    found: type[Shape] = getattr(contract, HOST_NAMES.get(name, name))
    return found


def through(instance: SkillInstance, name: str, payload: bytes) -> bytes | None:
    """What comes back of a payload; None where the guest calls it a bad request."""
    request = HandleRequest(
        at_ms=0, correlation=bytes(16), id=bytes(16), payload=payload, phase="act", priority=0, source="", topic=name, verb="act", weight=0.0
    )  # fmt: skip
    try:
        reply = instance.call("handle", cbor.encode(request))
    except SkillRefused as error:
        assert error.skill_code == "bad_request", str(error)
        return None
    return cbor.decode_struct(reply, HandleReply, "reply").payload


def by_the_host(name: str, payload: bytes) -> bytes | None:
    """The same by the host, but that every guest library refuses infinities and NaN, too."""
    try:
        value = cbor.decode_struct(payload, struct(name), name)
    except (MalformedData, TooLarge):
        return None
    return cbor.encode(value) if finite(msgspec.to_builtins(value, builtin_types=(bytes,))) else None


def finite(value: Any) -> bool:
    match value:
        case dict():
            return all(map(finite, value.values()))
        case list() | tuple():
            return all(map(finite, value))
        case float():
            return math.isfinite(value)
        case _:
            return True


def test_the_made_files_of_the_guest_libraries_are_those_that_the_structs_give():
    for path, text in made().items():
        assert path.read_text() == text, "run `python -m sdk.bindings`"


@pytest.mark.slow
def test_every_shape_comes_back_as_the_same_bytes(guest: LocalSkill) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with guest.loaded.instance() as instance:
        for name in NAMES:
            tried = 0
            while tried < 40:
                try:
                    value = msgspec.convert(samples.fresh(struct(name), rng), struct(name))
                except msgspec.ValidationError:
                    continue  # `done` has one value only
                tried += 1
                sent = cbor.encode(value)
                assert through(instance, name, sent) == sent, f"{name}: {sent.hex()}"


@pytest.mark.slow
def test_damaged_bytes_are_taken_and_refused_as_the_host_takes_and_refuses_them(guest: LocalSkill) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    taken = 0
    with guest.loaded.instance() as instance:
        for _ in range(6_000):
            name = rng.choice(NAMES)
            try:
                damaged = bytearray(cbor.encode(msgspec.convert(samples.fresh(struct(name), rng), struct(name))))
            except msgspec.ValidationError:
                continue
            for _ in range(rng.randint(1, 2)):
                damaged[rng.randrange(len(damaged))] = rng.choice((rng.randrange(256), 0xF6, 0xF9, 0xFF, 0x18, 0xA0))
            payload = bytes(damaged)
            expected, found = by_the_host(name, payload), through(instance, name, payload)
            if expected not in (None, payload) and found is None:
                continue  # the host takes an integer where a float stands in the contract, and would write it as one; a guest need not
            assert found == expected, f"{name}: {payload.hex()}"
            taken += expected is not None
    print(f"{taken} taken")
    assert taken > 100


@pytest.mark.slow
def test_many_calls_in_one_instance_need_no_more_memory_than_a_few(guest: LocalSkill) -> None:
    payload = cbor.encode(msgspec.convert(samples.fresh(contract.PlanReport, random.Random(1)) | {"done": True}, contract.PlanReport))
    with guest.loaded.instance() as instance:
        for _ in range(200):
            through(instance, "PlanReport", payload)
        settled = instance.memory_bytes()
        for _ in range(2_000):
            through(instance, "PlanReport", payload)
        assert instance.memory_bytes() == settled


@pytest.mark.slow
def test_a_request_for_which_there_is_no_room_is_told_so(compiled: bytes) -> None:
    """sc_alloc gives 0, which the host reports as a lack of memory and not as a trap."""
    described = UnverifiedBundle.parse(compiled, "round").manifest
    tight = msgspec.structs.replace(described, limits=msgspec.structs.replace(described.limits, memory_bytes=1 << 20))
    skill = LocalSkill(with_manifest(compiled, tight, "tight"), "tight")
    with skill.loaded.instance() as instance, pytest.raises(MemoryExceeded):
        instance.call("handle", bytes(3 << 20))
