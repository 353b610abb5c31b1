"""What the guest libraries make of the host: each import, typed, and only those that a skill uses; and what stays between calls. Feature flags in all four."""

from collections.abc import Callable
from pathlib import Path

import pytest

from host.core import cbor, safety
from host.core.errors import FuelExhausted, GuestTrap, SkillRefused
from host.plugins.contract import HandleReply, HandleRequest, PlanReport, PlanSettings
from host.plugins.streaming import plan
from host.sandbox.imports import HostServices
from sdk import project
from sdk.build import build
from sdk.inspection import check
from sdk.local import WIDE_OPEN, LocalSkill
from sdk.testbed import NOW_MS, SeededRandom, StillClock

MANIFEST = """
[skill]
name = "host-user"
version = "1.0.0"
hooks = ["handle", "plan_job"]
capabilities = ["log", "clock", "random", "state", "motion"]
[build]
lang = "{lang}"
source = "main.{extension}"
"""
# `topic` says what to do. A plan counts the bytes of its program and remembers its first chunk.
SOURCES = {
    "rust": """
use std::cell::RefCell;
use snapcount::{contract::*, export, fail, Failure};

export!(handle, plan_job);

fn handle(request: HandleRequest) -> Result<HandleReply, Failure> {
    let mut payload = Vec::new();
    let mut detail = String::new();
    match request.topic.as_str() {
        "log" => snapcount::log(snapcount::Level::Warning, "größer"),
        "now" => detail = snapcount::now_ms().to_string(),
        "random" => {
            payload = vec![0; 5];
            snapcount::random(&mut payload);
        }
        "set" => snapcount::state_set("key", &request.payload)?,
        "get" => match snapcount::state_get("key") {
            Some(value) => payload = value,
            None => detail = "nothing".to_string(),
        },
        "move" => {
            let ask = MotionMove { moves: vec![[1.0, 2.0, 3.0, 10.0]], ..Default::default() };
            let reply: MotionReply = snapcount::call("motion", &ask)?;
            detail = format!("{} {:?}", reply.moves, reply.position_mm);
        }
        "panic" => assert!(request.payload.len() > 1_000_000, "not that many"),
        "spin" => loop {
            detail.push('x');
            detail.clear();
        },
        other => return fail("unknown", other),
    }
    Ok(HandleReply { detail, handled: true, payload, ..Default::default() })
}

#[derive(Default)]
struct Seen {
    lines: u64,
    first: Vec<u8>,
}

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::new(Seen::default());
}

fn plan_job(request: PlanJobRequest) -> Result<PlanJobReply, Failure> {
    SEEN.with(|seen| {
        let mut seen = seen.borrow_mut();
        if request.seq == 0 {
            seen.first = request.chunk.clone();
        }
        seen.lines += request.chunk.iter().filter(|byte| **byte == b'\\n').count() as u64;
        if !request.last {
            return Ok(PlanJobReply::Progress(PlanProgress { done: No, lines: seen.lines }));
        }
        let first = String::from_utf8_lossy(&seen.first).into_owned();
        let problems = vec![Problem { code: "first".to_string(), line: 1, message: first }];
        Ok(PlanJobReply::Report(PlanReport { lines: seen.lines, problems, ..Default::default() }))
    })
}
""",
    "assemblyscript": """
import * as sc from "snapcount";

export function handle(request: sc.HandleRequest): sc.HandleReply {
  const reply = new sc.HandleReply();
  reply.handled = true;
  const topic = request.topic;
  if (topic == "log") {
    sc.log(sc.Level.Warning, "größer");
  } else if (topic == "now") {
    reply.detail = sc.nowMs().toString();
  } else if (topic == "random") {
    reply.payload = sc.random(5);
  } else if (topic == "set") {
    if (!sc.stateSet("key", request.payload)) return sc.fail<sc.HandleReply>("state_full", "the quota is full");
  } else if (topic == "get") {
    const value = sc.stateGet("key");
    if (value) reply.payload = value;
    else reply.detail = "nothing";
  } else if (topic == "move") {
    const ask = new sc.MotionMove();
    ask.moves.push([1, 2, 3, 10]);
    const moved = sc.call<sc.MotionMove, sc.MotionReply>("motion", ask);
    if (sc.failed()) return reply;
    reply.detail = moved.moves.toString() + " [" + moved.position_mm.join(", ") + "]";
  } else if (topic == "panic") {
    assert(request.payload.length > 1000000, "not that many");
  } else if (topic == "spin") {
    for (let i = 0; ; i++) reply.detail = i.toString();
  } else {
    return sc.fail<sc.HandleReply>("unknown", topic);
  }
  return reply;
}

class Seen {
  lines: u64 = 0;
  first: string = "";
  chunks: Map<u64, i32> = new Map<u64, i32>();
}

const seen = new Seen();

export function plan_job(request: sc.PlanJobRequest): sc.PlanJobReply {
  if (request.seq == 0) seen.first = String.UTF8.decode(request.chunk.buffer);
  seen.chunks.set(request.seq, request.chunk.length);
  for (let i = 0; i < request.chunk.length; i++) if (request.chunk[i] == 10) seen.lines += 1;
  if (!request.last) return sc.PlanJobReply.ofProgress(seen.lines);
  const report = new sc.PlanReport();
  const problem = new sc.Problem();
  problem.code = "first";
  problem.line = 1;
  problem.message = seen.first;
  report.lines = seen.lines;
  report.problems.push(problem);
  assert(seen.chunks.size == <i32>request.seq + 1);
  return sc.PlanJobReply.ofReport(report);
}
""",
}
TIGHT = WIDE_OPEN.replace(b"z = [-1e6, 1e6]", b"z = [0.0, 1.0]")
LANGS = ("rust", "assemblyscript")


@pytest.fixture(scope="module", params=LANGS)
def data(request: pytest.FixtureRequest, require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    require(request.param)
    folder: Path = tmp_path_factory.mktemp(request.param)
    extension = {"rust": "rs", "assemblyscript": "ts"}[request.param]
    (folder / f"main.{extension}").write_text(SOURCES[request.param])
    (folder / "skill.toml").write_text(MANIFEST.format(lang=request.param, extension=extension))
    return build(project.load(folder)).read_bytes()


@pytest.fixture
def skill(data: bytes) -> LocalSkill:
    return LocalSkill(data, "host-user", clock=StillClock(), random=SeededRandom())


def asked(topic: str, payload: bytes = b"") -> HandleRequest:
    return HandleRequest(
        at_ms=0, correlation=bytes(16), id=bytes(16), payload=payload, phase="act", priority=0, source="", topic=topic, verb="act", weight=0.0
    )  # fmt: skip


def told(skill: LocalSkill, topic: str, payload: bytes = b"") -> HandleReply:
    reply = skill.version.call("handle", asked(topic, payload))
    assert isinstance(reply, HandleReply)
    return reply


@pytest.mark.slow
def test_a_line_of_text_reaches_the_log_whole(skill: LocalSkill) -> None:
    told(skill, "log")
    assert skill.logged == [("warning", "größer")]


@pytest.mark.slow
def test_time_and_random_bytes_come_from_the_host(skill: LocalSkill) -> None:
    assert told(skill, "now").detail == str(NOW_MS)
    assert told(skill, "random").payload == SeededRandom().token(5)


@pytest.mark.slow
def test_state_outlives_the_instance_and_an_empty_value_deletes_it(skill: LocalSkill) -> None:
    assert told(skill, "get").detail == "nothing"
    for value in (b"short", bytes(range(256)) * 40):
        told(skill, "set", value)
        assert told(skill, "get").payload == value
    told(skill, "set", b"")
    assert told(skill, "get").detail == "nothing"


@pytest.mark.slow
def test_a_driver_answers_and_its_refusal_is_the_skills_own(data: bytes, skill: LocalSkill) -> None:
    assert told(skill, "move").detail.replace(".0", "") == "1 [1, 2, 3]"
    fenced = LocalSkill(data, "host-user", limits=safety.parse_limits(TIGHT, "limits"))
    with pytest.raises(SkillRefused) as caught:
        told(fenced, "move")
    assert caught.value.skill_code == "unsafe_command"
    assert fenced.machine.moves == 0


@pytest.mark.slow
def test_a_failed_assertion_is_a_trap_and_an_endless_loop_ends_with_its_fuel(skill: LocalSkill) -> None:
    with pytest.raises(GuestTrap):
        told(skill, "panic")
    with pytest.raises(FuelExhausted):
        told(skill, "spin")
    with pytest.raises(SkillRefused) as caught:
        told(skill, "no such topic")
    assert caught.value.skill_code == "unknown"


@pytest.mark.slow
def test_a_streaming_hook_keeps_what_a_global_holds_from_chunk_to_chunk(skill: LocalSkill) -> None:
    program = [b"first\n", *(b"%d\n" % number + b";" * 200_000 for number in range(60))]
    with skill.loaded.instance() as instance:
        report = plan(instance, program, PlanSettings(), False, "planner")
        assert isinstance(report, PlanReport)
        assert instance.memory_bytes() < 8 << 20, "what one chunk needed must serve the next"
    assert report.lines == 61
    assert report.problems[0].message == "first\n"


@pytest.mark.slow
def test_it_imports_what_it_uses(data: bytes) -> None:
    imports = {name.split(".")[-1] for name in check(data, "host-user", None, None)["imports"]}
    assert imports == {"log", "now_ms", "random", "state_get", "state_set", "call"}


@pytest.mark.slow
def test_the_same_call_gives_the_same_bytes_and_uses_the_same_fuel(data: bytes) -> None:
    request = asked("random")
    seen = set()
    for _ in range(5):
        fresh = LocalSkill(data, "host-user", clock=StillClock(), random=SeededRandom())
        with fresh.loaded.instance() as instance:
            seen.add((instance.call("handle", cbor.encode(request)), instance.fuel_used))
    assert len(seen) == 1


# ---- Feature flags ---------------------------------------------------------------------------

FLAGS_MANIFEST = """
[skill]
name = "flag-user"
version = "1.0.0"
hooks = ["handle"]
capabilities = ["flags"]
[build]
lang = "{lang}"
source = "src/main.{extension}"
"""
EXTENSIONS = {"zig": "zig", "c": "c", "rust": "rs", "assemblyscript": "ts"}
# The topic names the flag; one with a blank in it is no name of a flag.
FLAG_SOURCES = {
    "zig": """
const sc = @import("snapcount");

pub fn handle(r: sc.contract.HandleRequest) !sc.contract.HandleReply {
    return .{ .detail = if (sc.flag(r.topic)) "on" else "off" };
}

comptime {
    sc.exportSkill(@This());
}
""",
    "c": """
#include "snapcount.h"

SC_HOOK(handle, HandleRequest, HandleReply)

static sc_status handle(const HandleRequest *r, HandleReply *reply) {
    reply->handled = true;
    reply->detail = sc_text_of(sc_flag(sc_text_same(r->topic, sc_text_of("fast_plan")) ? "fast_plan" :
        sc_text_same(r->topic, sc_text_of("never_named")) ? "never_named" : "no name") ? "on" : "off");
    return SC_OK;
}
""",
    "rust": """
use snapcount::{contract::*, export, Failure};

export!(handle);

fn handle(r: HandleRequest) -> Result<HandleReply, Failure> {
    let detail = if snapcount::flag(&r.topic) { "on" } else { "off" };
    Ok(HandleReply { detail: detail.to_string(), handled: true, ..Default::default() })
}
""",
    "assemblyscript": """
import { HandleReply, HandleRequest, flag } from "snapcount";

export function handle(r: HandleRequest): HandleReply {
  const reply = new HandleReply();
  reply.handled = true;
  reply.detail = flag(r.topic) ? "on" : "off";
  return reply;
}
""",
}


class Flagged(LocalSkill):
    """A skill on a host whose operators have switched on what `on` has."""

    on: frozenset[str] = frozenset()

    def _services(self) -> HostServices:
        services = super()._services()
        services._flags = lambda: self.on
        return services


@pytest.fixture(scope="module", params=sorted(FLAG_SOURCES))
def flag_user(request: pytest.FixtureRequest, require: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    require(request.param)
    folder: Path = tmp_path_factory.mktemp(request.param)
    extension = EXTENSIONS[request.param]
    (folder / "src").mkdir()
    (folder / f"src/main.{extension}").write_text(FLAG_SOURCES[request.param])
    (folder / "skill.toml").write_text(FLAGS_MANIFEST.format(lang=request.param, extension=extension))
    return build(project.load(folder)).read_bytes()


@pytest.mark.slow
def test_a_flag_is_a_function_in_every_language_and_may_change_between_two_calls(flag_user: bytes) -> None:
    skill = Flagged(flag_user, "flag-user")
    assert told(skill, "fast_plan").detail == "off"
    skill.on = frozenset({"fast_plan"})
    assert told(skill, "fast_plan").detail == "on"
    assert told(skill, "never_named").detail == "off"


@pytest.mark.slow
def test_a_flag_that_cannot_be_asked_for_is_off_and_the_call_goes_on(flag_user: bytes) -> None:
    skill = Flagged(flag_user, "flag-user")
    skill.on = frozenset({"no name"})
    assert told(skill, "no name") == HandleReply(detail="off", handled=True, payload=b"", state="ready")


@pytest.mark.slow
def test_asking_for_flags_needs_one_import_and_one_capability(flag_user: bytes) -> None:
    assert [name.split(".")[-1] for name in check(flag_user, "flag-user", None, None)["imports"]] == ["call"]
