"""`snapcount node init` at a terminal: a real pseudo-terminal, at which somebody types."""

import os
import pty
import re
import select
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import host
from host.core import keys

pytestmark = pytest.mark.slow

ROOT = Path(host.__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "dumb"}
DEADLINE_S = 30.0


class Terminal:
    """A command with a pseudo-terminal as its only files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-P", "-m", "sdk.cli.main", *arguments]
        self._process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.shown = ""

    def answer(self, question: str, text: str) -> None:
        """Waits until `question` is asked, after what was shown before, and types an answer."""
        before = len(self.shown)
        self._read(lambda: re.search(question, self.shown[before:]) is not None, question)
        os.write(self._master, f"{text}\n".encode())

    def end(self) -> int:
        """Everything is read; the exit code."""
        self._read(lambda: False, "", until_end=True)
        code = self._process.wait(DEADLINE_S)
        os.close(self._master)
        return code

    def close(self) -> None:
        """For a test that failed half-way: nothing is left running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self, done, wanted: str, until_end: bool = False) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} was not asked; shown: {self.shown}"
            try:
                piece = os.read(self._master, 4096)
            except OSError:  # EIO: the other end was closed
                piece = b""
            if not piece:
                assert until_end, f"it ended before it asked {wanted!r}: {self.shown}"
                return
            self.shown += piece.decode()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts `snapcount` with arguments at a terminal, in the test's folder."""
    begun: list[Terminal] = []

    def begin(*arguments: str) -> Terminal:
        begun.append(Terminal(tmp_path, *arguments))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def settings(folder: Path, state: str) -> dict:
    return tomllib.loads((folder / state / "node.toml").read_text())


def test_somebody_who_takes_every_default_gets_a_node_and_an_owners_key(tmp_path, terminal):
    typing = terminal("node", "init")
    for question in (r"State directory \[node\]", r"Name .*\[node\]", r"generation.*\[1\]", r"private key \[owner.key\]", "Make it now",
                     "registry", "authors", "ask for at all", r"Role|role", r"Make it\?"):  # fmt: skip
        typing.answer(question, "")
    assert typing.end() == 0, typing.shown
    made = settings(tmp_path, "node")
    assert made["node"]["name"] == "node"
    assert made["node"]["registry"] == ""
    assert made["mesh"]["role"] == ""
    assert made["node"]["owner"] == keys.public_text(keys.load(tmp_path / "owner.key").verify_key)
    assert "# What the owner of this node decided" in (tmp_path / "node/node.toml").read_text()


def test_every_answer_is_what_node_toml_says_and_the_state_directory_names_the_node(tmp_path, terminal):
    keys.create(tmp_path / "author.key", bytes(range(32)))
    keys.create(tmp_path / "mine.key", bytes(range(1, 33)))
    typing = terminal("node", "init", "--state", "press-7", "--owner-key", "mine.key")
    for question, text in (
        (r"Name .*\[press-7\]", ""), ("generation", "3"), ("registry", "http://127.0.0.1:8470"), (r"authors.*\[author.pub\]", ""),
        ("ask for at all", "log, state"), ("role", "lead"), ("parents", "ws://127.0.0.1:8480"), ("listens", "127.0.0.1:8481"), (r"Make it\?", "y"),
    ):  # fmt: skip
        typing.answer(question, text)
    assert typing.end() == 0, typing.shown
    made = settings(tmp_path, "press-7")
    assert made["node"] | {"owner": ""} == made["node"] | {
        "name": "press-7",
        "generation": 3,
        "registry": "http://127.0.0.1:8470",
        "owner": "",
    }
    assert made["trust"]["authors"] == [(tmp_path / "author.pub").read_text().strip()]
    assert made["capabilities"]["allowed"] == ["log", "state"]
    assert (made["mesh"]["role"], made["mesh"]["parents"], made["mesh"]["listen"]) == ("lead", ["ws://127.0.0.1:8480"], "127.0.0.1:8481")


def test_an_answer_that_makes_no_sense_is_asked_for_again(tmp_path, terminal):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    typing = terminal("node", "init", "--make-owner-key")
    for question, text in (
        ("State directory", "full"), ("made new.*State directory(?s:.*)", "n"), ("Name", "Press 7"), ("not 'Press 7'(?s:.*)Name", "p"),
        ("generation", "300"), ("found '300'(?s:.*)generation", "2"), ("private key", ""), ("registry", "ftp://x"), ("found 'ftp://x'(?s:.*)registry", ""),
        ("authors", "nobody.pub"), ("nobody.pub: the public key cannot be read(?s:.*)authors", ""), ("ask for at all", "Motion!"),
        ("ask for at all", "log"), ("role", "boss"), ("found 'boss'(?s:.*)role", "lead"), ("parents", "here"), ("expected ws(?s:.*)parents", "nats://root"),
        ("listens", "8481"), ("expected HOST:PORT(?s:.*)listens", "0.0.0.0:8481"), ("without TLS", "n"), ("this machine only", "127.0.0.1:8481"),
        ("NATS server", "x"), ("expected the address(?s:.*)NATS server", "nats://127.0.0.1:4222"), (r"Make it\?", "y"),
    ):  # fmt: skip
        typing.answer(question.replace("made new.*State", "made new(?s:.*)State"), text)
    assert typing.end() == 0, typing.shown
    made = settings(tmp_path, "n")
    assert (made["mesh"]["parents"], made["mesh"]["nats"], made["mesh"]["insecure"]) == (["nats://root"], "nats://127.0.0.1:4222", False)
    assert (tmp_path / "owner.key").exists()


@pytest.mark.parametrize("last", ["n", "\x04"])
def test_somebody_who_says_no_or_goes_away_has_written_nothing(tmp_path, terminal, last):
    typing = terminal("node", "init", "--make-owner-key", "--state", "n")
    for question in ("Name", "generation", "private key", "registry", "authors", "ask for at all", "role"):
        typing.answer(question, "")
    typing.answer(r"Make it\?", last)
    assert typing.end() == 1, typing.shown
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_asked_when_a_decision_stands_on_the_command_line_or_nobody_is_there(tmp_path, terminal):
    typing = terminal("node", "init", "--state", "a", "--name", "a", "--make-owner-key")
    assert typing.end() == 0, typing.shown
    assert "Name of the node" not in typing.shown
    command = [sys.executable, "-P", "-m", "sdk.cli.main", "node", "init", "--state", "b"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "b/node.toml").exists()


def test_the_owners_key_is_made_where_it_is_told_to_be_and_never_again(tmp_path):
    command = [sys.executable, "-P", "-m", "sdk.cli.main", "node", "init", "--owner-key", "safe/place/me.key", "--make-owner-key", "--json"]
    for state in ("a", "b"):
        ended = subprocess.run(
            [*command, "--state", state],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert len(ended.stdout.splitlines()) == 1
    assert (tmp_path / "safe/place/me.key").stat().st_mode & 0o777 == 0o600
    assert settings(tmp_path, "a")["node"]["owner"] == settings(tmp_path, "b")["node"]["owner"]
