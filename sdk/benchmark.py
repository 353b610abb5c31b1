"""Measures a skill on its own vectors: time, fuel and memory for each, beside what it asks for."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from host.core import cbor
from host.plugins.contract import PlanSettings, Shape
from host.plugins.streaming import plan
from host.sandbox.skill import SkillInstance
from sdk import vectors
from sdk.local import LocalSkill
from sdk.project import Project
from sdk.vectors import Vector

SAMPLES_MAX = 2_000


def measure_all(data: bytes, project: Project, seconds: float) -> list[dict[str, Any]]:
    """One row for each vector that expects a reply: median call time in µs, fuel and memory of a call, and their share of the limits."""
    return [_measure(data, path.stem, path.parent, vector, seconds) for path, vector in vectors.load(project.vectors) if not vector.error]


def _measure(data: bytes, name: str, folder: Any, vector: Vector, seconds: float) -> dict[str, Any]:
    skill = LocalSkill(data, name)
    program = (folder / vector.program_file).read_bytes() if vector.program_file else vector.program.encode()
    earlier, call = _caller(skill, vector, program)
    times: list[int] = []
    fuel = memory = 0
    until = time.perf_counter() + seconds
    while not times or (time.perf_counter() < until and len(times) < SAMPLES_MAX):
        for request in earlier:
            skill.version.call(vector.hook, request)
        with skill.loaded.instance() as instance:
            start = time.perf_counter_ns()
            call(instance)
            times.append(time.perf_counter_ns() - start)
            fuel, memory = max(fuel, instance.fuel_used), max(memory, instance.memory_bytes())
    call_us = statistics.median(times) / 1000
    limits = skill.loaded.limits
    return {
        "name": name, "calls": len(times), "call_us": round(call_us, 2), "fuel": fuel, "fuel_share": fuel / limits.fuel,
        "memory_kib": memory >> 10, "memory_share": memory / limits.memory_bytes, "mb_per_s": round(len(program) / call_us, 1) if program else None,
    }  # fmt: skip


def _caller(skill: LocalSkill, vector: Vector, program: bytes) -> tuple[list[Shape], Callable[[SkillInstance], object]]:
    """What comes before each call and is not measured, and the call."""
    if vector.hook == "plan_job":
        settings = msgspec.convert(vector.settings, PlanSettings)
        return [], lambda instance: plan(instance, [program], settings, vector.run, skill.loaded.name)
    *earlier, request = vectors.requests(vector, skill.loaded.name)
    encoded = cbor.encode(request)
    return earlier, lambda instance: instance.call(vector.hook, encoded)
