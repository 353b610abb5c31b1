"""A local fleet as its commands run it: several processes, real WebSockets, a control socket."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import host

ROOT = Path(host.__file__).resolve().parents[1]  # where snapcount was imported from: the installation, or a tree on PYTHONPATH
COMMAND = [sys.executable, "-P", "-m", "sdk.cli.main"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def snapcount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


def last_json(ended: subprocess.CompletedProcess[str]) -> dict:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["wave", pytest.param("parallel", marks=pytest.mark.ci)])
def test_a_cascade_over_real_sockets_makes_every_agent_ready(strategy):
    ended = snapcount("mesh", "bench", "--agents", "330", "--strategy", strategy, "--json")
    found = last_json(ended)
    print(found)
    assert found["connected"] == found["agents"] == 330
    assert found["ready"] >= 0.95 * 330
    assert found["ready"] + found["conflict"] + found["transit"] + found["skipped"] == 330
    assert found["verify_failures"] == 0
    assert found["messages"] >= 2 * found["ready"]
    assert "330 agents connected" in ended.stderr, "the start shows how far it is"


@pytest.mark.slow
def test_a_running_local_fleet_answers_the_fleet_commands_and_leaves_nothing_behind(tmp_path):
    state = tmp_path / "fleet"
    running = subprocess.Popen(
        [*COMMAND, "mesh", "run", "--agents", "61", "--state", str(state), "--heartbeat", "0.5"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert "61 agents are connected" in running.stdout.readline()
        until = time.monotonic() + 30
        while last_json(snapcount("fleet", "status", "--state", str(state), "--json"))["agents"]["active"] < 61:
            assert time.monotonic() < until, "not every agent became active"
        cascade = last_json(snapcount("fleet", "broadcast", "line.start", "--state", str(state), "--json"))
        assert (cascade["ready"], cascade["acted"]) == (61, 61)
        question = last_json(snapcount("fleet", "ask", "line.who", "--state", str(state), "--to", "cluster-00002", "--json"))
        assert [bytes.fromhex(reply["payload"]) for reply in question["replies"]] == [b"agent-000060"]
        panel = snapcount("fleet", "status", "--state", str(state)).stdout
        assert "61" in panel and "SUCCESS" in panel
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert not (state / "control.sock").exists()
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(["pgrep", "-f", f"sdk.mesh.worker.*{state}"], check=True)


@pytest.mark.slow
def test_too_many_agents_for_the_file_limit_is_one_line_that_says_what_to_do():
    limited = ["bash", "-c", 'ulimit -n 256 && exec "$@"', "-", *COMMAND, "mesh", "bench", "--agents", "3000"]
    ended = subprocess.run(limited, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    if os.getuid() == 0 and ended.returncode == 0:
        pytest.skip("this user may raise its limits as it likes")
    assert ended.returncode == 40
    assert "ulimit -n" in ended.stderr and "Traceback" not in ended.stderr
