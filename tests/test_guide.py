"""The guide: every block of its pages is run, compiled or checked; its references are made from the code; it builds without a warning.

`docs/_ext/guide_blocks.py` says what a block can be, and what a comment before it can say of it. Pages are executed by CI, one test for each.
"""

import importlib.util
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import typer

from host import config
from host.core.errors import SkillRefused
from host.core.safety import SafetyLimits
from host.plugins import hookspecs
from host.plugins.contract import SHAPES
from sdk import project
from sdk.build import build
from sdk.cli.main import app
from sdk.local import LocalSkill
from sdk.toolchains import TOOLCHAINS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOT_RUN_MAX = 20
REASON_CHARS_MIN = 20


def _module(name: str) -> ModuleType:
    """A module of the guide's own machinery, which is no package."""
    if str(DOCS / "_ext") not in sys.path:
        sys.path.append(str(DOCS / "_ext"))
    return importlib.import_module(name)


guide = _module("guide_blocks")
reference = _module("guide_reference")
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in guide.pages(ROOT)}
BLOCKS: dict[str, list[Any]] = {}
BAD: list[str] = []
for _page, _text in PAGES.items():
    try:
        BLOCKS[_page] = guide.parse(_page, _text)
    except guide.BadPage as error:
        BAD.append(str(error))


def blocks(*kinds: str) -> list[Any]:
    return [block for found in BLOCKS.values() for block in found if not kinds or block.kind in kinds]


# ---- what can be said of every block without running it ---------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_run_compiled_checked_or_is_a_command_s_output():
    assert BAD == []
    found = blocks()
    assert len(found) > 100
    alone = [
        block.where for block in found if block.kind in ("gcode", "udev", "cddl", "wit") and not {"file", "not run"} & block.said.keys()
    ]
    assert alone == [], "a block that is neither run nor a file"


def test_what_is_not_run_has_a_reason_and_is_little():
    found = [block for block in blocks() if "not run" in block.said]
    for block in found:
        print(f"{block.where}: {block.said['not run']}")
        assert len(block.said["not run"]) >= REASON_CHARS_MIN, block.where
    assert len(found) <= NOT_RUN_MAX


ROOT_COMMAND: Any = typer.main.get_command(app)


def parse(words: list[str]) -> None:
    """Goes through the commands that a command line names. Raises the parser's own errors for what they do not take."""
    command = ROOT_COMMAND
    context = command.make_context("snapcount", list(words), resilient_parsing=bool({"--version", "--help"} & set(words)))
    while hasattr(command, "resolve_command") and (left := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, left)
        context = command.make_context(name, rest, parent=context, resilient_parsing=context.resilient_parsing)


WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\\n|[^\s'"])+""")


def invocations() -> Iterator[tuple[str, list[str]]]:
    """Where, and the words after `snapcount`, of every such command in the guide, also where it is not run. Variables of the shell stand for 1."""
    for block in blocks("sh", "console", "before"):
        for command, _ in guide.commands(block):
            line = re.sub(r"\$\(\(.*?\)\)|\$\([^()]*\)|\$\w+", "1", re.sub(r"\\\n", " ", guide.uncommented(command)))
            for part in re.split(r"&&|\|\||[;|]|\bdo\b|\bthen\b|\n", line):
                words = [re.sub(r"['\"]", "", word) for word in WORD.findall(part)]
                while words and words[0] in ("sudo", "timeout", "!", "until", "if"):
                    words = words[2:] if words[0] == "timeout" else words[1:]
                if words and words[0] == "snapcount":
                    cut = next((n for n, word in enumerate(words) if re.match(r"[&<>]|\d>", word)), len(words))
                    yield block.where, words[1:cut]


def test_every_snapcount_command_of_the_guide_exists_and_takes_its_options():
    found = list(invocations())
    assert len(found) > 100
    for where, words in found:
        try:
            parse(words)
        except typer.Exit:
            pass
        except Exception as error:
            raise AssertionError(f"{where}: snapcount {' '.join(words)}: {getattr(error, 'message', error)}") from error


@pytest.mark.parametrize("wrong", [["node", "init", "--colour", "red"], ["node", "dance"], ["fleet", "push"]])
def test_a_command_that_does_not_exist_would_be_found(wrong):
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(wrong)


NODE = config.template("node-1", "ed25519:" + "0" * 64, 1, "", (), (), ("grbl",), config.Mesh())
SKILL = '[skill]\nname = "x"\nversion = "1.0.0"\nhooks = ["bid"]\n[build]\nlang = "zig"\nsource = "a.zig"\n'
SAFETY = "[travel_mm]\nx = [0.0, 1.0]\ny = [0.0, 1.0]\nz = [0.0, 1.0]\n[speed_mm_s]\nmax = 1.0\n[rate]\nmoves_per_s = 1.0\n"
FILES: dict[type, str] = {config.NodeConfig: NODE, project._File: SKILL, SafetyLimits: SAFETY}


def check_toml(text: str) -> type:
    """The struct whose file a piece of TOML belongs to: by its tables. Raises what is wrong with it."""
    found = tomllib.loads(text)
    (struct,) = [each for each in FILES if found.keys() <= {field.encode_name for field in msgspec.structs.fields(each)}]
    whole = tomllib.loads(FILES[struct])
    for table, keys in found.items():
        whole[table] = whole.get(table, {}) | keys
    msgspec.convert(whole, struct)
    return struct


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.where)
def test_settings_are_those_of_the_file_that_they_belong_to(block):
    check_toml(block.text)


def test_a_key_that_does_not_exist_would_be_found():
    with pytest.raises(msgspec.ValidationError, match="colour"):
        check_toml('[supply]\ncolour = "red"\n')


def test_json_is_json():
    for block in blocks("json"):
        json.loads(block.text)


def anchors(text: str) -> set[str]:
    """What a page's headings are linked by."""
    text = re.sub(r"^```{include} \.\./\.\./(.*)\n```$", lambda found: (ROOT / found[1]).read_text(), text, flags=re.MULTILINE)
    outside = re.sub(r"^( *)(`{3,}).*?^ *\2 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\(.*?\)", "", heading)).strip().lower().replace(" ", "-") for heading in headings}


def test_links_lead_to_pages_and_headings_that_are_there():
    outside = []
    for page, text in PAGES.items():
        filled = reference.filled(text)
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^ *(`{3,}).*?^ *\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)):
            url = urlsplit(target)
            if url.scheme:
                outside.append(target)
                assert url.scheme == "https" and url.hostname and "." in url.hostname, f"{page}: {target}"
                continue
            path = (ROOT / page).parent / url.path if url.path else ROOT / page
            assert path.exists(), f"{page}: {target}"
            if url.fragment:
                whole = filled if not url.path else reference.filled(path.read_text())
                assert url.fragment in anchors(whole), f"{page}: {target}"
    print("links that leave the guide, which no test follows:", *sorted(set(outside)), sep="\n  ")


def test_the_files_that_the_guide_names_are_there():
    for page, text in PAGES.items():
        for name in re.findall(r"`((?:packaging|benchmarks|host|registry|sdk|skills|tests)/[\w./@-]+)`", text):
            assert name.rpartition("/")[2].isupper() or (ROOT / name).exists(), f"{page}: {name}"
        for target in re.findall(r"^(?:sudo )?make (\w+)$", text, re.MULTILINE):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), f"{page}: make {target}"


# ---- the reference ---------------------------------------------------------------------------------------------------------------------------------


def everything() -> dict[str, set[str]]:
    """By page of the reference, what must stand on it."""

    def leaves(command: Any, path: str) -> Iterator[str]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from leaves(child, f"{path} {name}")

    hooks = {name for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")}
    return {
        "cli": set(leaves(typer.main.get_command(app), "snapcount")),
        "hooks": hooks | {"self_test"} | set(SHAPES),
        "errors": {name for found in reference.error_classes() for name in (found.__name__, found.code)},
        "limits": set(reference.bounds.Limits.__dataclass_fields__),
        "contract": {shape.__name__ for pair in SHAPES.values() for shape in pair},
        "capabilities": set(reference.named.FEATURES | reference.named.BUILT_IN),
        "node_toml": {f"[{field.encode_name}]" for field in msgspec.structs.fields(config.NodeConfig)},
        "skill_toml": {f"[{field.encode_name}]" for field in msgspec.structs.fields(project._File)},
        "safety_toml": {f"[{field.encode_name}]" for field in msgspec.structs.fields(SafetyLimits)},
    }  # fmt: skip


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_has_everything_that_the_code_has(name):
    page = reference.PAGES[name]()
    for wanted in everything()[name]:
        assert re.search(rf"(?<!\w){re.escape(wanted)}(?![\w-])", page), wanted


def test_every_feature_of_the_host_is_explained_where_the_reference_says():
    page = PAGES["docs/abi.md"]
    assert [name for name in reference.named.FEATURES if f"| `{name}` |" not in page] == []


def test_every_example_of_a_command_is_one_that_it_takes():
    examples = re.findall(r"^snapcount .*$", reference.cli().replace("\\\n", " "), re.MULTILINE)
    assert len(examples) > 60
    for example in examples:
        words = [re.sub(r"^'|'$", "", word) for word in WORD.findall(example.partition("  (")[0])]
        parse(words[1:])


# ---- what runs -------------------------------------------------------------------------------------------------------------------------------------

HOOKS = "|".join(sorted(SHAPES))
HOOK = {"python": re.compile(rf"^def ({HOOKS})\(", re.MULTILINE), "javascript": re.compile(rf"^export function ({HOOKS})\(", re.MULTILINE)}
ANY_HOOK = re.compile(rf"\b({HOOKS})[(,]")
PROJECT = '[skill]\nname = "snippet"\nversion = "1.0.0"\nhooks = ["{hook}"]\n[build]\nlang = "{lang}"\nsource = "main.{extension}"\n'
EXTENSIONS = {"zig": "zig", "c": "c", "rust": "rs", "typescript": "ts", "javascript": "js", "python": "py"}


def hook_of(block: Any) -> str:
    """The hook that a piece of source answers; empty for one that is no skill, as a script."""
    found = HOOK.get(block.kind, ANY_HOOK).search(block.text)
    return found[1] if found else ""


SOURCES = [block for block in blocks(*EXTENSIONS) if not {"file", "not run"} & block.said.keys() and hook_of(block)]


def test_every_source_on_a_page_is_a_skill_or_a_file_of_the_page_and_every_language_has_one():
    assert {guide.LANGUAGES.get(block.kind, block.kind) for block in SOURCES} == set(TOOLCHAINS)
    lost = [b.where for b in blocks(*guide.LANGUAGES) if b not in SOURCES and not {"file", "not run"} & b.said.keys()]
    assert lost == [], "a block of source that nothing compiles"


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("block", SOURCES, ids=lambda block: block.where)
def test_a_piece_of_a_skill_compiles_as_it_stands(block: Any, require: Callable[[str], None], tmp_path: Path, bid_request: Any) -> None:
    lang = guide.LANGUAGES.get(block.kind, block.kind)
    require(lang)
    hook = hook_of(block)
    (tmp_path / f"main.{EXTENSIONS[block.kind]}").write_text(block.text)
    (tmp_path / "skill.toml").write_text(PROJECT.format(hook=hook, lang=lang, extension=EXTENSIONS[block.kind]))
    skill = LocalSkill(build(project.load(tmp_path)).read_bytes(), block.where)
    if hook != "bid":
        return
    assert skill.version.call("bid", bid_request).id == bid_request.bounty.id  # type: ignore[attr-defined]  # it is a BidReply
    if "bad_margin" in block.text:
        with pytest.raises(SkillRefused, match=r"bad_margin: margin is -0\.5; it must not be negative"):
            skill.version.call("bid", msgspec.structs.replace(bid_request, margin=-0.5))


@pytest.fixture(scope="session")
def bid_request() -> Any:
    from sdk.demo.samples import BID

    return BID


RUN = [
    page
    for page, found in BLOCKS.items()
    if any(block.kind in ("sh", "console", "python") and "not run" not in block.said for block in found)
]


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_every_command_of_a_page_does_what_the_page_says(page: str, tmp_path: Path, require: Callable[[str], None]) -> None:
    shell = _module("guide_shell")
    if not shell.available():
        assert not os.environ.get("CI"), "pages are run in namespaces of their own, which this machine does not let us make"
        pytest.skip("pages are run in namespaces of their own, which this machine does not let us make")
    for lang in sorted(set(re.findall(r"--lang (\w+)", PAGES[page]))):
        require(lang)  # while there is a network that it may be fetched from
    with shell.Shell(tmp_path / "home", ROOT) as opened:
        for block in BLOCKS[page]:
            if "not run" not in block.said and block not in SOURCES:
                shell.run_block(opened, block)


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None and not os.environ.get("CI"), reason="the generator is not installed: make docs"
)
def test_the_guide_builds_without_a_warning_and_has_the_whole_reference(tmp_path: Path, run_quietly: Callable[..., str]) -> None:
    printed = run_quietly(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", str(DOCS), str(tmp_path / "html"))
    assert printed == ""
    for name, wanted in everything().items():
        page = (tmp_path / "html/reference" / f"{name.replace('_', '-')}.html").read_text()
        words = re.sub(r"<[^>]*>", "", page)
        assert not [one for one in wanted if one not in words], name
    assert not [
        path.name
        for path in (tmp_path / "html").rglob("*.html")
        if re.search(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css|woff2?)"', path.read_text())
    ]


@pytest.fixture
def run_quietly(tmp_path: Path) -> Callable[..., str]:
    """Runs a program away from the tree, with the packages that this test imports. What it printed; it must end with 0."""
    import subprocess

    def run(*command: str) -> str:
        where = str(Path(config.__file__).resolve().parents[1])
        ended = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": where}, capture_output=True, text=True, timeout=300, check=False
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    return run


# ---- the runner itself -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```\nls\n```\n", "of a kind"),
        ("```basic\n10\n```\n", "of a kind"),
        ("```sh\nls\n", "never closed"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "with a value"),
        ("<!-- notrun: because -->\n```sh\nls\n```\n", "expected a comment"),
        ("<!-- not run: needs root -->\nwords\n", "no block after it"),
    ],
)
def test_a_page_that_hides_a_block_is_refused(page, complaint):
    with pytest.raises(guide.BadPage, match=complaint):
        guide.parse("page.md", page)


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a …", "a 17", True),
        ("…\nend", "1\n2\nend", True),
        ("a\n…\nz", "a\nz", True),
        ("a", "a\nb", False),
        ("a…b", "a\nb", False),
        ("a\n…", "a", True),
    ],
)
def test_shown_output_stands_for_what_is_printed(expected, found, same):
    assert guide.shows(expected, found) is same


def test_a_script_is_split_into_whole_commands():
    script = "a \\\n  b\n# words\ncat <<END >x\n$ y\nEND\nfor n in 1 2; do\n  echo 'it is\n  late'\ndone\nlast 'x # y'  # comment\n"
    assert guide.split(script) == [
        "a \\\n  b",
        "cat <<END >x\n$ y\nEND",
        "for n in 1 2; do\n  echo 'it is\n  late'\ndone",
        "last 'x # y'  # comment",
    ]
    assert guide.uncommented("last 'x # y'  # comment &") == "last 'x # y'"


@pytest.mark.slow
def test_a_page_runs_in_one_shell_that_reaches_nobody_and_leaves_nothing_running(tmp_path):
    shell = _module("guide_shell")
    if not shell.available():
        pytest.skip("this machine lets us make no namespaces")
    page = "```sh\nmkdir x && cd x\nSEEN=yes\n(echo 'registry at 8470'; sleep 600) &\n```\n```console\n$ pwd; echo $SEEN\n/home/you/x\nyes\n```\n"
    wrong = page + "<!-- exit: 3 -->\n```console\n$ (exit 4)\n```\n"
    with shell.Shell(tmp_path / "home", ROOT) as opened:
        for block in guide.parse("page.md", page):
            shell.run_block(opened, block)
        assert opened.run("grep -c : /proc/net/dev").output == "1\n", "more than the loopback device"
        assert _running_in(tmp_path)
        with pytest.raises(guide.BadPage, match="ended with 4, expected 3"):
            for block in guide.parse("page.md", wrong)[2:]:
                shell.run_block(opened, block)
    until = time.monotonic() + 10
    while _running_in(tmp_path):
        assert time.monotonic() < until, "a process of the page runs on"
        time.sleep(0.02)


def _running_in(folder: Path) -> list[str]:
    """The numbers of processes that stand in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process.name)
        except OSError:
            continue
    return found
