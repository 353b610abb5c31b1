"""Python: componentize-py of one version, from the package index. It puts CPython, the sources and the guest library into one component.

The sources are compiled on a copy, beside the guest library, which is the package `snapcount`, and an entry module that is made from the manifest. The
interpreter is started while building, so that nothing is imported during a call; builds are the same everywhere because it is started in a world without time
(still.py). What WASI offers is stubbed: the component has no imports but the host's.
"""

import ast
import importlib.util
import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from host.core.errors import UsageError
from host.plugins.contract import HOOKS, STREAMING
from sdk.bindings import wit, world_of
from sdk.project import Project
from sdk.toolchains import still
from sdk.toolchains.process import GUEST, BuildFailed, bounded, run

VERSION = "0.25.1"
GET = f"pip install componentize-py=={VERSION}"
ENTRY = "snapcount_entry"
TAKEN = frozenset(
    {"snapcount", ENTRY, "wit_world", "componentize_py_types", "componentize_py_runtime", "componentize_py_async_support", "poll_loop"}
)


def python(project: Project, scratch: Path, say: Callable[[str], None]) -> bytes:
    """Makes the component of the project's sources, all of the folder of `build.source`."""
    _require_compiler()
    name, source = project.manifest.name, project.source
    module = source.stem
    if not module.isidentifier() or module in TAKEN or source.suffix != ".py":
        raise UsageError(
            f"{name}: build.source: {source.name} cannot be imported; it is to be a .py file with an ordinary name, not {', '.join(sorted(TAKEN))}"
        )
    hooks = [hook for hook in project.manifest.hooks if hook in HOOKS]
    _require_functions(project, hooks)
    ignored = shutil.ignore_patterns("__pycache__", "*.wasm", ".*")
    shutil.copytree(source.parent, scratch / "app", ignore=ignored)
    shutil.copytree(GUEST / "python" / "snapcount", scratch / "lib" / "snapcount", ignore=ignored)
    (scratch / "lib" / f"{ENTRY}.py").write_text(entry(hooks, module))
    (scratch / "wit").mkdir()
    (scratch / "wit" / "skill.wit").write_text(world_of(hooks, project.manifest.capabilities))
    _run(scratch, name, source, say)
    return (scratch / "module.wasm").read_bytes()


def entry(hooks: list[str], module: str) -> str:
    """The module that has a skill's functions answer as hooks."""
    lines = ["import snapcount.entry", "import wit_world", f"import {module} as skill", "from snapcount import types", ""]
    lines += ["", "class WitWorld(wit_world.WitWorld):"]
    for hook in hooks:
        arguments = "" if wit.is_empty(hook) else ", request"
        call = f"streamed(skill.{hook}" if hook in STREAMING else f"answer(types.{wit.reply_of(hook)}, skill.{hook}"
        lines += [f"    def {hook}(self{arguments}):", f"        return snapcount.entry.{call}{arguments})", ""]
    return "\n".join([*lines, "", "snapcount.entry.built()", ""])


def _run(scratch: Path, name: str, source: Path, say: Callable[[str], None]) -> None:
    # An empty virtual environment: otherwise the packages of this machine would be looked through, and found.
    packages = scratch / "venv" / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    environment = {
        "VIRTUAL_ENV": str(scratch / "venv"),
        "PYTHONPATH": "",
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(scratch / "tmp"),
        "RUST_BACKTRACE": "0",
    }
    (scratch / "tmp").mkdir()
    arguments = ["-q", "-d", "wit", "-w", "skill", "componentize", "--stub-wasi", "-p", "app", "-p", "lib", ENTRY, "-o", "module.wasm"]
    made = scratch / "module.wasm"
    command = [sys.executable, "-P", still.__file__, "componentize_py", *arguments]

    def find(output: str) -> str:
        return first_error(output, source)

    code, output = bounded(command, scratch, name, environment)
    if code == still.NOT_ALLOWED:
        say(
            "this system does not let a build stop its clock (seccomp): the bytes differ from those that others get, and from build to build"
        )
        command = [sys.executable, "-P", "-c", "import sys, componentize_py; sys.exit(componentize_py.script())", *arguments]
        run(command, scratch, name, made, environment=environment, find=find)
    elif code != 0 or not made.exists():
        raise BuildFailed(f"{name}: does not compile: {find(output) or f'the compiler ended with {code}'}", output)


def _require_functions(project: Project, hooks: list[str]) -> None:
    """Raises BuildFailed for sources that cannot be read, and for a hook without a function, before minutes are spent on it."""
    folder, name = project.folder.resolve(), project.manifest.name
    for path in sorted(project.source.parent.rglob("*.py")):
        try:
            tree = ast.parse(path.read_bytes(), str(path.relative_to(folder)))
        except (SyntaxError, ValueError) as error:
            where = f"{path.relative_to(folder)}:{getattr(error, 'lineno', None) or 1}:{getattr(error, 'offset', None) or 1}"
            said = error.msg if isinstance(error, SyntaxError) else str(error)
            raise BuildFailed(f"{name}: does not compile: {where}: error: {said}", f"{where}: error: {said}\n") from error
        if path == project.source:
            _require_named(name, str(path.relative_to(folder)), tree, hooks)


def _require_named(name: str, where: str, tree: ast.Module, hooks: list[str]) -> None:
    named: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                named.add(node.name)
            case ast.alias():
                if node.name == "*":
                    return  # another module may have them
                named.add(node.asname or node.name)
            case ast.Name(ctx=ast.Store()):
                named.add(node.id)
    missing = [hook for hook in hooks if hook not in named]
    if missing:
        said = f"{where}:1:1: error: there is no function {missing[0]} for the hook {missing[0]} of skill.toml"
        raise BuildFailed(f"{name}: does not compile: {said}", said + "\n")


def describe() -> str:
    """The compiler and its version. Raises UsageError where it is missing, or another than the pinned one."""
    _require_compiler()
    return f"componentize-py {VERSION}"


def _require_compiler() -> None:
    if importlib.util.find_spec("componentize_py") is None:
        raise UsageError(f"componentize-py is missing: install it with `{GET}` (it unpacks to 46 MB)")
    try:
        found = version("componentize-py")
    except PackageNotFoundError:
        found = "an unknown version"
    if found != VERSION:
        raise UsageError(f"builds are reproducible with componentize-py {VERSION} only, found {found}: {GET}")


def first_error(output: str, source: Path) -> str:
    """What ended the interpreter while it imported the skill, with the last place in the skill's own files: `src/main.py:3: NameError: …`."""
    places = re.findall(r'File "(?:[^"]*/)?([^"/]+\.py)", line (\d+)', output)
    own = [(file, line) for file, line in places if (source.parent / file).is_file()]
    errors = re.findall(r"^\s*((?:[A-Za-z_]+\.)*[A-Z][A-Za-z]*(?:Error|Exception|Interrupt|Exit)\b.*)$", output, re.MULTILINE)
    said = next((error for error in reversed(errors) if not error.startswith("AssertionError: failed to")), "")
    if not said:
        return next((line.strip() for line in output.splitlines() if line.strip()), "")
    return f"{source.parent.name}/{own[-1][0]}:{own[-1][1]}: error: {said}" if own else said
