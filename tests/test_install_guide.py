"""docs/install.md: every command of it exists, with the options that it is given."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from sdk.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs/install.md"
TOOLS = {
    "snapcount",
    "apt-get",
    "make",
    "systemctl",
    "journalctl",
    "tar",
    "chown",
    "useradd",
    "python3",
    "ln",
    "install",
    "nano",
    "/usr/lib/snapcount/bin/pip",
}


def commands() -> list[list[str]]:
    """Each command line of the fenced blocks, without sudo."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] if words[0] == "sudo" else words for words in lines if words]


def parse(words: list[str]) -> list[str]:
    """The names of the commands that a command line goes through. Raises click's own errors for what they do not take."""
    command = typer.main.get_command(app)
    context = command.make_context("snapcount", list(words), resilient_parsing=words == ["--version"])
    path: list[str] = []
    while hasattr(command, "resolve_command") and context._protected_args + context.args:
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
        context = command.make_context(name, rest, parent=context)
    return path


def test_every_command_of_the_guide_is_of_a_tool_that_it_speaks_of():
    assert len(commands()) > 25
    assert {words[0] for words in commands()} <= TOOLS


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "snapcount"], ids=" ".join)
def test_every_snapcount_command_of_the_guide_parses(words):
    path = parse(words[1:])
    assert path or words[1:] == ["--version"]


@pytest.mark.parametrize("wrong", [["node", "init", "--colour", "red"], ["node", "dance"], ["fleet", "push"]])
def test_a_command_that_does_not_exist_would_be_found(wrong):
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(wrong)


def test_the_files_that_the_guide_names_are_there():
    text = GUIDE.read_text()
    for name in re.findall(r"packaging/[\w./@-]+", text):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"^make (\w+)$", text, re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()
