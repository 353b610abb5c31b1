"""The benchmarks run and print what they promise. The thresholds are loose: a shared machine is no place for tight ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def measured(name: str, *options: str) -> dict[str, float]:
    ended = subprocess.run(
        [sys.executable, str(FOLDER / name), "--json", *options], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_a_skill_call_is_far_faster_than_its_peers_in_the_same_run():
    found = measured("skill_call.py")
    print(found)
    assert found["path"] == "direct"
    assert found["ratio_wasmtime_py"] >= 50
    assert found["ratio_extism"] >= 20
    assert found["direct_ns"] <= 1_000
    assert found["hook_us"] <= 40
    assert found["instance_us"] <= 20
    assert found["load_cached_ms"] <= 2


@pytest.mark.slow
@pytest.mark.ci
def test_the_arrival_kernel_is_far_faster_than_its_peers_in_the_same_run():
    found = measured("arrival.py")
    print(found)
    assert found["ratio_numpy_30k"] >= 2
    assert found["ratio_python_30k"] >= 100
    assert found["ns_per_agent_30k"] <= 5


@pytest.mark.slow
@pytest.mark.ci
def test_every_language_of_the_fast_tier_answers_a_hook_call_in_microseconds():
    found = measured("languages.py", "--tier", "fast")
    print(found)
    assert 200 <= found["request_bytes"] <= 256
    if os.environ.get("CI"):
        assert found["missing"] == []
    measured_langs = [lang for lang in ("zig", "c", "rust", "assemblyscript") if f"{lang}_call_us" in found]
    assert {"zig", "c"} <= set(measured_langs)
    for lang in measured_langs:
        assert found[f"{lang}_call_us"] <= 40
        assert found[f"{lang}_bytes"] <= 64 << 10


@pytest.mark.slow
@pytest.mark.ci
def test_the_slow_tier_answers_a_hook_call_in_milliseconds():
    found = measured("languages.py", "--tier", "slow")
    print(found)
    if os.environ.get("CI"):
        assert found["missing"] == []
    for lang in (lang for lang in ("python", "javascript") if f"{lang}_call_us" in found):
        assert found[f"{lang}_call_us"] <= 6_000
        assert found[f"{lang}_bytes"] <= 48 << 20


@pytest.mark.slow
def test_a_long_program_reaches_a_machine_whole_with_its_buffer_full_and_without_what_was_refused():
    found = measured("grbl.py")
    print(found)
    assert found["acknowledged"] == found["lines"] == 5_000
    assert found["in_order"] is True
    assert (found["lost_bytes"], found["refused_sent"], found["refused"]) == (0, 0, 100)
    assert 120 <= found["in_flight_peak"] <= 128
    assert 120 <= found["unanswered_peak"] <= 128
