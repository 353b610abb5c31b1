"""The reference, made from the code: each function here gives one page's Markdown. A page has a line `<!-- generated: NAME -->` where it belongs."""

import inspect
import io
import re
import tokenize
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import typer
from guide_structs import Key, comments_of_cddl, comments_of_toml, struct_table, structs_below, table

import sdk
from host import config
from host.core import capabilities as named
from host.core import errors as tree
from host.core import limits as bounds
from host.core.commands import Command
from host.core.manifest import Manifest
from host.core.safety import SafetyLimits
from host.plugins import contract as shapes
from host.plugins import hookspecs
from sdk import project
from sdk.cli.main import app

CONTRACT = Path(sdk.__file__).resolve().parent / "contract"
TEMPLATE = Path(sdk.__file__).resolve().parent / "templates" / "zig" / "skill.toml"


def prose(text: str | None) -> str:
    """A docstring or help text as Markdown that Sphinx takes literally: what looks like HTML is not."""
    return inspect.cleandoc(text or "").replace("<", "&lt;").replace("\b", "")


def cli() -> str:
    """Every command with its arguments, options, defaults and example."""
    root = typer.main.get_command(app)
    out = [f"## snapcount\n\n{prose(root.help)}\n\n{_options(root)}"]
    for name, command in root.commands.items():
        out += _command(command, f"snapcount {name}", 2)
    return "\n\n".join(out)


def _command(command: Any, path: str, level: int) -> Iterator[str]:
    yield f"{'#' * min(level, 4)} {path}\n\n{prose(command.help)}"
    inner = getattr(command, "commands", {})
    if not inner:
        yield _arguments(command) + _options(command)
        if command.epilog:
            yield f"```sh\n{re.sub(r'^Example: ', '', command.epilog)}\n```"
    for name, child in inner.items():
        yield from _command(child, f"{path} {name}", level + 1)


def _arguments(command: Any) -> str:
    rows = [
        (f"`{param.metavar or param.name.upper()}`", _value(param), prose(param.help))
        for param in command.params
        if param.param_type_name == "argument"
    ]
    return table(("argument", "value", "meaning"), rows) + "\n\n" if rows else ""


def _options(command: Any) -> str:
    rows = [
        (", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts)), _value(param), _meaning(param))
        for param in command.params
        if param.param_type_name == "option" and param.name not in ("install_completion", "show_completion")
    ]
    return table(("option", "value", "meaning"), rows) if rows else ""


def _value(param: Any) -> str:
    """What may stand there, in words, and its default."""
    if getattr(param, "is_flag", False):
        return ""
    if isinstance(shown := param.show_default, str):
        default = f", default: {shown}"
    elif param.required:
        default = ", required"
    else:
        value = getattr(param.default, "value", param.default)
        value = ", ".join(map(str, value)) if isinstance(value, list) else value
        default = "" if callable(value) or value is None or value in ("", [], ()) else f", default `{value}`"
    return _kind(param.type_descriptor.annotation, param.min, param.max) + default


_KINDS = {int: "integer", float: "number", str: "text", Path: "path", bool: "true or false"}


def _kind(kind: Any, low: float | None, high: float | None) -> str:
    inner = [each for each in typing.get_args(kind) if each is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return " \\| ".join(f"`{each}`" for each in inner)
    if inner:
        return _kind(inner[0] if len(inner) == 1 else typing.Literal[tuple(inner)], low, high)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " \\| ".join(f"`{each.value}`" for each in kind)
    bounded = f", {low} to {high}" if low is not None and high is not None else f", at least {low}" if low is not None else ""
    return _KINDS.get(kind, kind.__name__) + bounded


def _meaning(param: Any) -> str:
    variable = f" Environment variable: `{param.envvar}`." if param.envvar else ""
    return prose(param.help) + variable


def hooks() -> str:
    """Every hook of hookspecs.py with its signature and words, and what a skill gets and gives."""
    out = []
    for name, spec in vars(hookspecs).items():
        options = getattr(spec, f"{hookspecs.PROJECT}_spec", None)
        if not inspect.isfunction(spec) or options is None:
            continue
        by_skill = name in shapes.SHAPES or name in shapes.STREAMING
        who = "Skills and native plugins." if by_skill else "Native plugins only."
        answers = "The first answer that is not None wins." if options["firstresult"] else "All are asked."
        streamed = " A streaming hook: see the [contract](contract.md)." if name in shapes.STREAMING else ""
        pair = shapes.SHAPES.get(name)
        contract = f"\n\nRequest {_shape(pair[0])}, reply {_shape(pair[1])}." if pair else ""
        signature = str(inspect.signature(spec)).replace("typing.", "").replace("collections.abc.", "")
        signature = re.sub(r"(?:host|pluggy)\.[\w.]*\.", "", signature)
        out.append(f"## {name}\n\n```python\n{name}{signature}\n```\n\n{who} {answers}{streamed}{contract}\n\n{prose(spec.__doc__)}")
    out.append(
        f"## self_test\n\nSkills only, one at a time. Request {_shape(shapes.SelfTestRequest)}, reply {_shape(shapes.SelfTestReply)}.\n\n"
        "Called when a version is about to become active: it becomes so only when `ok` is true."
    )
    return "\n\n".join(out)


def _shape(struct: type) -> str:
    return f"[`{struct.__name__}`](contract.md#{struct.__name__.lower()})"


def contract() -> str:
    """Every shape of the contract, field by field, with the comments of the CDDL; then the CDDL."""
    comments = comments_of_cddl((CONTRACT / "skill.cddl").read_text())
    own = [
        value
        for value in vars(shapes).values()
        if isinstance(value, type) and issubclass(value, shapes.Shape) and value is not shapes.Shape
    ]
    out = ["## Shapes"]
    for shape in own:
        out.append(f"### {shape.__name__}\n\n{prose(shape.__doc__) if '__doc__' in vars(shape) else ''}\n\n{struct_table(shape, comments)}")
    out.append("## Commands of the capability motion\n\nThe safety envelope reads them before the driver does.")
    for command in sorted(Command.__subclasses__(), key=lambda found: found.__name__):
        out.append(f"### {command.__name__}\n\n{prose(command.__doc__)}\n\n{struct_table(command, comments)}")
    out.append("## The CDDL\n\n" + f"```cddl\n{(CONTRACT / 'skill.cddl').read_text()}```")
    if (wit := CONTRACT / "skill.wit").exists():
        out.append(f"## The WIT\n\nThe same for components, the slow tier.\n\n```wit\n{wit.read_text()}```")
    return "\n\n".join(out)


def limits() -> str:
    """Every bound by its group, its value as people read it."""
    out, rows = [], []
    group = ""
    notes = _trailing_comments(inspect.getsource(bounds.Limits))
    for line in inspect.getsource(bounds.Limits).splitlines():
        if found := re.match(r"    # (.*)$", line):
            if rows:
                out.append(f"## {group}\n\n" + table(("limit", "value", "note"), rows))
            group, rows = found[1].rstrip("."), []
        elif (found := re.match(r"    (\w+): ", line)) and found[1] in bounds.Limits.__dataclass_fields__:
            rows.append((f"`{found[1]}`", readable(found[1], getattr(bounds.DEFAULT, found[1])), notes.get(found[1], "")))
    out.append(f"## {group}\n\n" + table(("limit", "value", "note"), rows))
    return "\n\n".join(out)


def _trailing_comments(source: str) -> dict[str, str]:
    """Comments at the ends of lines, by the first name of the line."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    return {
        found[1]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT and (found := re.match(r"\s*(\w+):", token.line))
    }


def readable(name: str, value: float) -> str:
    """A bound with its unit, as `4 MiB` or `7 days`, by the unit in its name."""
    if "_bytes" in name:
        for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
        return f"{value:,} bytes"
    seconds = value / 1000 if "_ms" in name else value if re.search(r"_s(_|$)", name) and "per_s" not in name else None
    if seconds is None:
        return f"{value:,}"
    if seconds < 1:
        return f"{value:,} ms"
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def errors() -> str:
    """The tree, and each error's words."""
    drawn = re.search(r"^SnapcountError.*?\n\n", tree.__doc__ or "", re.MULTILINE | re.DOTALL)
    assert drawn, "the tree is drawn at the top of host/core/errors.py"
    rows = [
        (
            f"`{found.__name__}`",
            f"`{found.code}`",
            found.exit_code,
            f"`{found.__bases__[0].__name__}`",
            prose(found.__doc__).replace("\n", " "),
        )
        for found in error_classes()
    ]
    return f"```text\n{drawn[0].rstrip()}\n```\n\n" + table(("error", "code", "exit", "a kind of", "what it says"), rows)


def error_classes(root: type = tree.SnapcountError) -> list[type]:
    """The root and all below it, depth first."""
    return [root] + [found for child in root.__subclasses__() if child.__module__ == tree.__name__ for found in error_classes(child)]


def node_toml() -> str:
    """Every key of node.toml, with the comment that `node init` writes beside it."""
    written = config.template("NAME", "KEY", 1, "", (), (), ())
    return _file(
        config.NodeConfig,
        comments_of_toml(written),
        {"drivers": "a table for each plugin that has settings: [drivers.grbl](../grbl.md#wire-it)"},
    )


def skill_toml() -> str:
    """Every key of skill.toml. What the manifest says more strictly than the file's own types is taken from there."""
    more = {
        "skill.host_min": "the oldest host that it runs on", "skill.features": "[what the host must be able to do](../abi.md#flags-and-features)",
        "skill.messages": "[which messages it speaks](../abi.md#flags-and-features), a table `name`, `min`, `max` each", "skill.lineage": "which independent implementation this is",
        "skill.instance": "whether a call gets a fresh instance or the one that the calls before had", "skill.hooks": "the [hooks](hooks.md) that it answers",
        "build.optimize": "what the compiler is to prefer", "build.source": "the file that it begins with, relative to the folder", "test.vectors": "the folder of vectors, relative to the folder",
        "compare.default": "how far numbers of lineages may lie apart: `relative`, `absolute`", "compare.fields": "the same for fields by their path, as `products.yield_kg.sigma`",
        "skill.name": "lower case, digits, single dashes", "skill.version": "a semantic version",
    }  # fmt: skip
    return _file(project._File, comments_of_toml(TEMPLATE.read_text()) | more, {}, {"skill": Manifest})


def safety_toml() -> str:
    """Every key of safety.toml."""
    return _file(
        SafetyLimits, {}, {"temperature_c": "a line for each heater; one that has none cannot be used", "power_w": "a line for each tool"}
    )


def _file(struct: type, comments: dict[str, str], tables: dict[str, str], stricter: dict[str, type] | None = None) -> str:
    """A file's tables, one heading each. `stricter` names structs whose fields say more of a table than its own."""
    out = []
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        inner = structs_below(field.type)
        if inner:
            keys = {key.encode_name: key for key in msgspec.structs.fields((stricter or {}).get(name, inner[0]))}
            own = [Key(key.encode_name, keys.get(key.encode_name, key)) for key in msgspec.structs.fields(inner[0])]
            about = prose(inner[0].__doc__) if "__doc__" in vars(inner[0]) else ""
            own_comments = {key.name: comments.get(f"{name}.{key.name}", "") for key in own}
            out.append(f"## [{name}]\n\n{about}\n\n" + struct_table(inner[0], own_comments, own))
        else:
            out.append(f"## [{name}]\n\n{tables.get(name, '')}")
    return "\n\n".join(out)


def capabilities() -> str:
    """What a skill can ask for, and what a host can do."""
    imports = {need: [name for name, other in named.IMPORT_NEEDS.items() if other == need] for need in named.BUILT_IN}
    built_in = [
        (f"`{name}`", ", ".join(f"`{each}`" for each in imports[name] or [named.IMPORT_CALL]), "the host itself")
        for name in sorted(named.BUILT_IN)
    ]
    drivers = [
        (f"`{point.name}`", f"`{point.value}`")
        for point in sorted(entry_points(group=hookspecs.ENTRY_POINT_GROUP), key=lambda found: found.name)
    ]
    features = "\n".join(f"- `{name}`" for name in sorted(named.FEATURES))
    return (
        "## Capabilities\n\n" + table(("capability", "import of a core module", "offered by"), [*built_in, ("any other", "`call`", "a driver, such as `motion`")])
        + "\n\n## Drivers that come along\n\n" + table(("plugin", "module"), drivers)
        + f"\n\n## Features of this host\n\nWhat each means is in [the ABI](../abi.md#flags-and-features).\n\n{features}"
    )  # fmt: skip


PAGES: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (cli, hooks, contract, limits, errors, node_toml, skill_toml, safety_toml, capabilities)
}
_HERE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """A page's Markdown with what the code says in its place. Raises KeyError for a name that nothing generates."""
    return _HERE.sub(lambda found: PAGES[found[1]](), text)
