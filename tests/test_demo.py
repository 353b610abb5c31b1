"""The demo as `make demo` runs it: real processes, real sockets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import host
from sdk.demo import defences, story

ROOT = Path(host.__file__).resolve().parents[1]  # where snapcount was imported from: the installation, or a tree on PYTHONPATH


@pytest.mark.slow
@pytest.mark.ci
def test_the_demo_does_its_job_and_every_defence_holds(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "sdk.cli.main", "demo", "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout.strip().splitlines()[-1])
    assert story.succeeded(result)
    assert result["calls_lost_in_upgrade"] == 0
    assert result["nodes_active"] == result["jobs_done"] == 12
    assert result["cascade_ready"] == result["cascade_acted"] == 12
    assert result["bad_rollout_stopped"] is result["fix_reached_all"] is True
    assert 0 < result["delta_ratio"] <= story.DELTA_RATIO_MAX
    assert result["seconds"] < 90
    assert result["calls"] > 0
    assert result["hook_us_p50"] > 0
    assert all(result[name] is True for name in defences.DEFENCES)


def test_a_result_in_which_one_thing_did_not_hold_is_no_success():
    good = {
        "nodes": 2,
        "nodes_active": 2,
        "jobs_done": 2,
        "cascade_ready": 2,
        "cascade_acted": 2,
        "calls_lost_in_upgrade": 0,
    } | dict.fromkeys((*story.ROLLOUTS, *defences.DEFENCES), True)
    assert story.succeeded(good | {"delta_ratio": 0.01})
    assert not story.succeeded(good | {"delta_ratio": 0.5})
    good |= {"delta_ratio": 0.01}
    for key, value in good.items():
        if key not in ("nodes", "delta_ratio"):
            assert not story.succeeded(good | {key: False if value is True else value - 1})
