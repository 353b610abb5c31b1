"""JavaScript: componentize-qjs of one version makes a component of the skill, the guest library and QuickJS, as their memory is once all modules have run.

It works on a copy of the sources, beside which stand the guest library, as the package `snapcount`, the world of this skill, and an entry file that is made
from the manifest. The package has a native part for each machine, and needs no script of its own to be installed.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from host.plugins.contract import HOOKS
from sdk.bindings import world_of
from sdk.bindings.javascript import camel
from sdk.bindings.wit import INTERFACES, interface_of
from sdk.bindings.wit import PACKAGE as WIT_PACKAGE
from sdk.project import Project
from sdk.toolchains import quickjs
from sdk.toolchains.npm import Package, installed, node_for
from sdk.toolchains.process import GUEST, BuildFailed, run

VERSION = "0.4.5"
PINS = Path(__file__).resolve().parent / "npm-javascript"
CLI = Path("node_modules") / "componentize-qjs" / "cli.mjs"
NATIVE = "node_modules/@andreiltd/componentize-qjs-binding-*/*.node"
ENTRY, ENGINE = "snapcount-entry.js", "engine.wasm"
SNAPCOUNT = Path("node_modules") / "snapcount"
# What the compiler says before the first line of what is wrong.
STEPS = re.compile(r"^(?:Error: |: |Failed to [^:]*: |Error resolving module )*")
MEANT = re.compile(r"^(\S+): there is no exported function .*; did you mean (\w+)\?$")
MODULE = re.compile(r"'/(?:node_modules/)?(?=[^']*\.js')")
PLACE = re.compile(r"^\s+at (?:.*\()?/((?!node_modules/|snapcount-entry)[^\s(]+:\d+:\d+)\)?$")
OUTSIDE = re.compile(r"^'([^']*)' from '/?([^']*)'")


def _take_engines(folder: Path) -> None:
    """Puts both engines beside the package, where a build finds them faster. Raises BuildFailed where the package has none or others."""
    natives = [path.read_bytes() for path in folder.glob(NATIVE)]
    named = f"componentize-qjs {VERSION}"
    if not natives:
        raise BuildFailed(f"{named} has no program for this machine; there are those for Linux on x86_64 and aarch64", "")
    for optimize in quickjs.ENGINES:
        found = next((made for native in natives if (made := quickjs.engine(native, optimize))), None)
        if found is None:
            raise BuildFailed(f"{named} has another JavaScript engine than the pinned one", "")
        (folder / f"quickjs-{optimize}.wasm").write_bytes(found)


PACKAGE = Package("componentize-qjs", VERSION, PINS, CLI, finish=_take_engines)


def javascript(project: Project, scratch: Path, say: Callable[[str], None]) -> bytes:
    """Compiles a copy of the project's sources with the entry file in `scratch`."""
    node_for("JavaScript")
    tools = installed(PACKAGE, say)
    source = project.source.relative_to(project.folder.resolve())
    manifest = project.manifest
    shutil.copytree(
        project.source.parent, scratch / source.parent, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "*.wasm")
    )
    shutil.copytree(GUEST / "javascript", scratch / SNAPCOUNT)
    (scratch / SNAPCOUNT / "granted.js").write_text(granted(manifest.capabilities))
    (scratch / ENTRY).write_text(entry(manifest.hooks, source))
    (scratch / "skill.wit").write_text(world_of(manifest.hooks, manifest.capabilities))
    (scratch / ENGINE).write_bytes(_engine(tools / f"quickjs-{project.optimize}.wasm", project.optimize))
    made = scratch / "module.wasm"
    options = ["--wit", "skill.wit", "--js", ENTRY, "--module-root", ".", "--runtime", ENGINE, "--output", made.name]
    command = ["node", str(tools / CLI), *options]
    run(command, scratch, manifest.name, made, find=lambda output: first_error(output, scratch))
    return quickjs.hooks_only(made.read_bytes())


def entry(hooks: tuple[str, ...], source: Path) -> str:
    """The file whose functions are the component's."""
    known = [hook for hook in hooks if hook in HOOKS]  # another is refused by name after compiling, as in every language
    lines = [
        'import "snapcount/guard.js";',
        f'import * as skill from "./{source.as_posix()}";',
        'import { answering } from "snapcount/entry.js";',
    ]
    lines.append(f'const hooks = answering(skill, "{source.as_posix()}", {list(known)});')
    return "\n".join([*lines, *(f"export const {camel(hook)} = hooks.{hook};" for hook in known)]) + "\n"


def granted(capabilities: tuple[str, ...]) -> str:
    """The file with the host's interfaces that the manifest asks for: no other can be named."""
    texts = {name: INTERFACES[interface_of(name)] for name in capabilities}
    imports = {name: text.partition("\ninterface ")[2].split(" ")[0] for name, text in texts.items()}
    package, version = WIT_PACKAGE.split("@")
    lines = [f'import {camel(name)} from "{package}/{name}@{version}";' for name in dict.fromkeys(imports.values())]
    entries = [f"{capability}: {camel(name)}" for capability, name in imports.items()]
    return "\n".join([*lines, f"export const granted = {{ {', '.join(entries)} }};"]) + "\n"


def describe() -> str:
    """The pinned compiler, which is installed if it is not there yet. Raises UsageError where Node.js or npm is missing."""
    node = node_for("JavaScript")
    installed(PACKAGE, lambda line: None)
    return f"componentize-qjs {VERSION}, Node.js {node}"


def first_error(output: str, sources: Path) -> str:
    """What is wrong, with its place: `src/main.js:3:5: unexpected token`."""
    lines = output.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("Error: ")), None)
    if start is None:
        return ""
    if trap := re.search(r"wasm trap: (.+)", output):
        return f"it cannot be run to its end: {trap[1]}"
    said = STEPS.sub("", lines[start])
    if meant := MEANT.match(said):
        return said.replace(meant[1], f"{meant[1]}:{_line_of(meant[2], sources / meant[1])}", 1)
    if outside := OUTSIDE.match(said):
        return f"{outside[2]}: imports {outside[1]}, which is no file of the skill's and not snapcount"
    place = next((match[1] for line in lines[start:] if (match := PLACE.match(line))), "")
    said = MODULE.sub("'", said)
    return f"{place}: {said}" if place else said


def _line_of(name: str, source: Path) -> int:
    """The line in which a source declares or exports `name`; 1 where it is not found."""
    text = source.read_text(errors="replace")
    match = re.search(rf"^.*\b(?:function|const|let|class|export)\b[^\n]*\b{re.escape(name)}\b", text, re.MULTILINE)
    return text.count("\n", 0, match.start() if match else 0) + 1


def _engine(kept: Path, optimize: str) -> bytes:
    """The engine as it is built in. Raises BuildFailed for a file that is not the pinned one."""
    found = quickjs.engine(kept.read_bytes(), optimize) if kept.is_file() else None
    if found is None:
        raise BuildFailed(f"{kept} is not the pinned JavaScript engine; remove {kept.parent} and build again", "")
    return quickjs.alone(found)
