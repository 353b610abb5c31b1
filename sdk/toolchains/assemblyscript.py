"""AssemblyScript: the npm package of one version, from the project's node_modules or from a folder of the cache that npm fills once.

The compiler works on a copy of the sources, beside which stand the guest library, as the package `snapcount`, and an entry file that is made from the
manifest: it exports what docs/abi.md wants and calls the skill's functions by the names of the hooks.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from host.core.text import safe
from host.plugins.contract import SHAPES, STREAMING
from sdk.project import Project
from sdk.toolchains.npm import Package, installed, node_for
from sdk.toolchains.process import GUEST, run

VERSION = "0.28.20"
PINS = Path(__file__).resolve().parent / "npm"
ENTRY = "snapcount-entry.ts"
ASC = Path("node_modules") / "assemblyscript" / "bin" / "asc.js"
PACKAGE = Package(
    "assemblyscript", VERSION, PINS, ASC, by_hand=f"run `npm install assemblyscript@{VERSION}` in the skill's folder; "
)  # fmt: skip
# An abort is a trap, not an import; the names of functions stay, for backtraces; everything that docs/abi.md does not allow is off by default.
FLAGS = (
    "--runtime", "incremental", "--debug", "--noColors", "--use", "abort=~lib/snapcount/entry/trap", "--exportStart", "start",
    "--transform", "./node_modules/snapcount/start.mjs",
)  # fmt: skip

SPEED = ("-Ospeed",)
# The compiler's own -Osize saves 2 % more and makes a call a quarter slower.
SIZE = ("--optimizeLevel", "2", "--shrinkLevel", "1", "--converge")


def assemblyscript(project: Project, scratch: Path, say: Callable[[str], None]) -> bytes:
    """Compiles a copy of the project's sources with the entry file in `scratch`."""
    asc = find(project.folder, say)
    source = project.source.relative_to(project.folder.resolve())
    shutil.copytree(
        project.source.parent, scratch / source.parent, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "*.wasm")
    )
    shutil.copytree(GUEST / "assemblyscript", scratch / "node_modules" / "snapcount")
    (scratch / ENTRY).write_text(entry(project.manifest.hooks, source))
    made = scratch / "module.wasm"
    optimize = SPEED if project.optimize == "speed" else SIZE
    run(["node", asc, ENTRY, *FLAGS, *optimize, "-o", made.name], scratch, project.manifest.name, made, find=first_error)
    return made.read_bytes()


def entry(hooks: tuple[str, ...], source: Path) -> str:
    """The file that exports a skill's functions as hooks."""
    lines = [f'import * as skill from "./{source.with_suffix("").as_posix()}";']
    lines.append('import { answer, sc_alloc, sc_reset } from "snapcount/entry";')
    lines.append('import * as contract from "snapcount/contract";')
    lines.append("export { sc_alloc, sc_reset };")
    for hook in hooks:
        if hook not in SHAPES and hook not in STREAMING:
            continue  # it is refused by name after compiling, as in every language
        request, reply = (shape.__name__ for shape in SHAPES[hook]) if hook in SHAPES else ("PlanJobRequest", "PlanJobReply")
        lines.append(
            f"export function hook_{hook}(at: usize, length: usize): u64 {{ return answer<contract.{request}, contract.{reply}>(at, length, skill.{hook}); }}"
        )
    return "\n".join(lines) + "\n"


def describe() -> str:
    """The pinned compiler, which is installed if it is not there yet. Raises UsageError where Node.js or npm is missing."""
    find(None, lambda line: None)
    return f"assemblyscript {VERSION}, Node.js {node_for('AssemblyScript')}"


def find(folder: Path | None, say: Callable[[str], None]) -> Path:
    """The compiler's script: the project's own, else the pinned one, which npm installs at first use. Raises UsageError that says what is missing."""
    node_for("AssemblyScript")
    own = None if folder is None else folder.resolve() / ASC
    if own is not None and own.is_file():
        version = json.loads((own.parents[1] / "package.json").read_bytes())["version"]
        if version != VERSION:
            say(
                f"compiled with the project's own assemblyscript {safe(version)}: the bytes differ from those of {VERSION}, which others get"
            )
        return own
    return installed(PACKAGE, say) / ASC


def first_error(output: str) -> str:
    """The compiler's first error, with its place: `src/main.ts(3,5): ERROR TS2322: …`."""
    match = re.search(r"^(ERROR .*?)$(?:.*?└─ in (\S+))?", output, re.MULTILINE | re.DOTALL)
    if not match:
        return ""
    return f"{match[2]}: {match[1]}" if match[2] else match[1]
