"""The guest libraries: the shapes of `handle` through each, and what each refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host.core import cbor
from host.core.errors import SkillRefused
from host.core.limits import DEFAULT
from host.plugins.contract import HandleReply, HandleRequest
from sdk import project
from sdk.build import build
from sdk.local import LocalSkill

MANIFEST = """
[skill]
name = "echo"
version = "1.0.0"
hooks = ["handle"]
[build]
lang = "{lang}"
source = "src/main.{extension}"
"""
EXTENSIONS = {"zig": "zig", "c": "c", "rust": "rs", "assemblyscript": "ts"}
# All say what they were told: the numbers and words in `detail`, and one of the three byte strings in `payload`, which the topic picks.
SOURCES = {
    "zig": """
const std = @import("std");
const sc = @import("snapcount");

pub fn handle(r: sc.contract.HandleRequest) !sc.contract.HandleReply {
    if (std.mem.eql(u8, r.topic, "nothing")) return .{ .handled = false };
    const bytes = if (std.mem.eql(u8, r.topic, "id")) r.id else if (std.mem.eql(u8, r.topic, "correlation")) r.correlation else r.payload;
    return .{
        .detail = try std.fmt.allocPrint(sc.allocator, "{d} {s} {d} {s} {s} {s} {d}", .{
            r.at_ms, @tagName(r.phase), r.priority, r.source, r.topic, @tagName(r.verb), r.weight,
        }),
        .payload = .{ .data = bytes.data[0..@min(bytes.data.len, 16_384)] },
        .state = if (r.phase == .act) .conflict else .ready,
    };
}

comptime {
    sc.exportSkill(@This());
}
""",
    "c": """
#include "snapcount.h"

SC_HOOK(handle, HandleRequest, HandleReply)

static sc_status handle(const HandleRequest *r, HandleReply *reply) {
    static const char *const PHASES[] = { [PHASE_PREPARE] = "prepare", [PHASE_ACT] = "act" };
    static const char *const VERBS[] = {
        [VERB_OBSERVE] = "observe", [VERB_ORIENT] = "orient", [VERB_DECIDE] = "decide", [VERB_ACT] = "act",
        [VERB_RECORD] = "record", [VERB_SYNC] = "sync",
    };
    if (sc_text_same(r->topic, sc_text_of("nothing"))) return SC_OK;
    reply->handled = true;
    reply->payload = sc_text_same(r->topic, sc_text_of("id")) ? r->id
        : sc_text_same(r->topic, sc_text_of("correlation")) ? r->correlation : r->payload;
    if (reply->payload.len > 16384) reply->payload.len = 16384;
    reply->state = r->phase == PHASE_ACT ? STATE_CONFLICT : STATE_READY;
    reply->detail = sc_format("%llu %s %llu %.*s %.*s %s %g", r->at_ms, PHASES[r->phase], r->priority, SC_TEXT_ARGS(r->source),
        SC_TEXT_ARGS(r->topic), VERBS[r->verb], r->weight);
    return SC_OK;
}
""",
    "rust": """
use snapcount::{contract::*, export, number, Failure};

export!(handle);

fn handle(r: HandleRequest) -> Result<HandleReply, Failure> {
    if r.topic == "nothing" {
        return Ok(HandleReply::default());
    }
    let detail = format!(
        "{} {} {} {} {} {} {}", r.at_ms, r.phase.word(), r.priority, r.source, r.topic, r.verb.word(), number(r.weight, 6),
    );
    let mut payload = match r.topic.as_str() {
        "id" => r.id,
        "correlation" => r.correlation,
        _ => r.payload,
    };
    payload.truncate(16_384);
    let state = if r.phase == Phase::Act { HandleState::Conflict } else { HandleState::Ready };
    Ok(HandleReply { detail, handled: true, payload, state })
}
""",
    "assemblyscript": """
import { HandleReply, HandleRequest, HandleState, Phase, number } from "snapcount";

const PHASES: StaticArray<string> = ["prepare", "act"];
const VERBS: StaticArray<string> = ["observe", "orient", "decide", "act", "record", "sync"];

export function handle(r: HandleRequest): HandleReply {
  const reply = new HandleReply();
  if (r.topic == "nothing") return reply;
  reply.handled = true;
  reply.detail = [
    r.at_ms.toString(), PHASES[r.phase], r.priority.toString(), r.source, r.topic, VERBS[r.verb], number(r.weight, 6),
  ].join(" ");
  const bytes = r.topic == "id" ? r.id : r.topic == "correlation" ? r.correlation : r.payload;
  reply.payload = bytes.subarray(0, 16384);
  reply.state = r.phase == Phase.Act ? HandleState.Conflict : HandleState.Ready;
  return reply;
}
""",
}
MESSAGE = HandleRequest(
    at_ms=1_795_000_000_000, correlation=bytes(range(16)), id=bytes(range(16, 32)), payload=b"\x00\xff", phase="prepare", priority=2,
    source="lead-1", topic="cell.start", verb="act", weight=0.5,
)  # fmt: skip


@pytest.fixture(scope="module", params=sorted(SOURCES))
def echo(request: pytest.FixtureRequest, require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> LocalSkill:
    """A skill that answers with what it was told, compiled in each language."""
    require(request.param)
    folder: Path = tmp_path_factory.mktemp(request.param)
    extension = EXTENSIONS[request.param]
    (folder / "src").mkdir()
    (folder / f"src/main.{extension}").write_text(SOURCES[request.param])
    (folder / "skill.toml").write_text(MANIFEST.format(lang=request.param, extension=extension))
    return LocalSkill(build(project.load(folder)).read_bytes(), f"echo in {request.param}")


CHANGES: tuple[dict[str, Any], ...] = (
    {}, *({"verb": verb} for verb in ("observe", "orient", "decide", "act", "record", "sync")), {"phase": "act"}, {"at_ms": 0},
    {"at_ms": (1 << 64) - 1}, {"priority": 0}, {"priority": 3}, {"weight": 0.0}, {"weight": 16.0}, {"payload": b""}, {"source": ""},
    {"payload": bytes(DEFAULT.reply_payload_bytes_max)}, {"payload": bytes(DEFAULT.payload_bytes_max)}, {"topic": "t" * 64, "source": "s" * 64},
    {"topic": "id"}, {"topic": "correlation"}, {"topic": "ü" * 64},
)  # fmt: skip


@pytest.mark.slow
def test_a_message_comes_through_the_guest_library_whole_and_so_does_the_reply(echo: LocalSkill) -> None:
    for changed in CHANGES:
        sent = msgspec.structs.replace(MESSAGE, **changed)
        carried = {"id": sent.id, "correlation": sent.correlation}.get(sent.topic, sent.payload)
        assert echo.version.call("handle", sent) == HandleReply(
            detail=f"{sent.at_ms} {sent.phase} {sent.priority} {sent.source} {sent.topic} {sent.verb} {sent.weight:g}",
            handled=True, payload=carried[: DEFAULT.reply_payload_bytes_max], state="conflict" if sent.phase == "act" else "ready",
        )  # fmt: skip


@pytest.mark.slow
def test_a_reply_that_was_left_as_it_came_is_not_handled(echo: LocalSkill) -> None:
    reply = echo.version.call("handle", msgspec.structs.replace(MESSAGE, topic="nothing"))
    assert reply == HandleReply(detail="", handled=False, payload=b"", state="ready")


# The host never sends such a thing; a guest library does not rely on it.
WRONG: tuple[dict[str, Any], ...] = (
    {"priority": 4}, {"priority": -1}, {"phase": "cancel"}, {"verb": "obey"}, {"at_ms": -1}, {"at_ms": 1.0}, {"weight": 1}, {"id": "x" * 16},
    {"payload": "x"}, {"source": b"x"}, {"surplus": 1}, {"topic": None},
)  # fmt: skip
BOUNDS: tuple[dict[str, Any], ...] = (
    {"id": bytes(15)}, {"correlation": bytes(17)}, {"topic": ""}, {"topic": "t" * 65}, {"topic": "ü" * 65}, {"source": "s" * 65}, {"weight": -1.0},
    {"payload": bytes(DEFAULT.payload_bytes_max + 1)},
)  # fmt: skip


@pytest.mark.slow
def test_a_message_of_another_shape_is_refused_by_the_name_of_its_key(echo: LocalSkill, request: pytest.FixtureRequest) -> None:
    good = cbor.decode(cbor.encode(MESSAGE), "message")
    bounded = request.node.callspec.params["echo"] != "zig"  # the types of Zig have no lengths, those of the host have
    for wrong in WRONG + (BOUNDS if bounded else ()):
        with echo.loaded.instance() as instance, pytest.raises(SkillRefused, match=next(iter(wrong))) as caught:
            instance.call("handle", cbor.encode(good | wrong))
        assert caught.value.skill_code == "bad_request"
