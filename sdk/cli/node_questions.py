"""What `snapcount node init` asks a person who started it at a terminal and decided nothing on the command line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import typer

from sdk.cli.output import say

T = TypeVar("T")
# Where things are, not what the node is to be: who names only these is asked for the rest.
PLACES = ("state", "owner_key", "make_owner_key")
ROLES = ("none", "agent", "lead", "coordinator", "orchestrator")
LISTEN = "127.0.0.1:8480"


class Answers(NamedTuple):
    """The decisions, as the options of the same names would bring them; what is not asked for keeps its default."""

    state: Path
    name: str
    owner_key: Path
    make_owner_key: bool
    generation: int
    registry: str
    trust: list[Path]
    allow: str
    role: str
    parent: list[str]
    listen: str
    nats: str
    insecure: bool


def wanted(context: typer.Context) -> bool:
    """Whether to ask: somebody is there to answer, and gave no option but places."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return not any(is_given(context, name) for name in context.params if name not in PLACES)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def ask(context: typer.Context, default: Answers) -> Answers:
    """Asks, shows what came of it, and asks whether to go on. Raises typer.Abort when it is not to be."""
    say("A new node. Enter takes what stands in brackets; nothing is written before the last question.")
    state = default.state if is_given(context, "state") else _ask("State directory", str(default.state), _new_directory)
    name = _ask("Name of the node, unique in its fleet", _name_from(state, default.name), _name)
    generation = _ask("Hardware generation, 1 to 255", str(default.generation), _generation)
    owner_key, make = _owner(context, default)
    registry = _ask("Address of the registry that skills come from, http://HOST:PORT (empty: none)", default.registry, _registry)
    known = "author.pub" if Path("author.pub").exists() else ""
    trust = _ask("Public keys (.pub) of the authors whose skills it takes, comma separated (empty: none yet)", known, _authors)
    allow = _ask("What skills may ask for at all, comma separated", default.allow, _capabilities)
    role, parent, listen, nats, insecure = _place()
    answers = Answers(state, name, owner_key, make, generation, registry, trust, allow, role, parent, listen, nats, insecure)
    _confirm(answers)
    return answers


def _ask(question: str, default: str, check: Callable[[str], T]) -> T:
    from host.core.errors import SnapcountError
    from host.core.text import safe

    while True:
        answer = typer.prompt(question, default=default, show_default=bool(default))
        try:
            return check(str(answer).strip())
        except (SnapcountError, ValueError) as error:
            say(f"  {safe(str(error))}")


def _new_directory(text: str) -> Path:
    path = Path(text)
    if not text or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ValueError(f"{text or 'it'}: a node's state directory is made new; name one that is not there yet")
    return path


def _name(text: str) -> str:
    import msgspec

    from host.core.manifest import Name

    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError as error:
        raise ValueError(f"a node's name is lower case letters, digits and single dashes, not {text!r}") from error


def _name_from(state: Path, default: str) -> str:
    try:
        return _name(state.name)
    except ValueError:
        return default


def _generation(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 255:
        raise ValueError(f"expected a number from 1 to 255, found {text!r}")
    return int(text)


def _owner(context: typer.Context, default: Answers) -> tuple[Path, bool]:
    path = default.owner_key
    while True:
        if not is_given(context, "owner_key"):
            path = _ask("The owner's private key", str(path), Path)
        if path.exists() or default.make_owner_key:
            return path, default.make_owner_key
        if typer.confirm(f"{path}: there is none. Make it now?", default=True):
            return path, True
        if is_given(context, "owner_key"):
            raise typer.Abort


def _registry(text: str) -> str:
    from urllib.parse import urlsplit

    if text and not (urlsplit(text).scheme in ("http", "https") and urlsplit(text).hostname):
        raise ValueError(f"expected http://HOST:PORT or https://HOST:PORT, found {text!r}")
    return text


def _authors(text: str) -> list[Path]:
    from host.core import keys

    paths = [Path(part) for part in _parts(text)]
    for path in paths:
        keys.load_public(path)
    return paths


def _capabilities(text: str) -> str:
    import msgspec

    from host.core.manifest import HookName

    msgspec.convert(_parts(text), list[HookName])
    return ",".join(_parts(text))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _place() -> tuple[str, list[str], str, str, bool]:
    """Role, parents, listen, NATS server, and whether it may listen without TLS."""
    role = _ask(f"Its role in a mesh: {', '.join(ROLES)}", ROLES[0], _role)
    parents: list[str] = []
    listen, nats, insecure = "", "", False
    if role not in ("", "orchestrator"):
        parents = _ask("Its parents in the mesh, ws://HOST:PORT or nats://NAME, comma separated", "", lambda text: _parents(_parts(text)))
    if role not in ("", "agent"):
        listen = _ask("Where it listens for its children, HOST:PORT or nats://NAME", LISTEN, _listen)
        if not listen.startswith("nats://") and not _is_sound(role="orchestrator", listen=listen):
            insecure = typer.confirm(
                f"{listen} can be reached from outside, and what is sent is signed but not hidden. Listen there without TLS?"
            )
            listen = listen if insecure else _ask("Where it listens for its children, on this machine only", LISTEN, _listen_here)
    if any(place.startswith("nats://") for place in (*parents, listen)):
        nats = _ask(
            "The NATS server, nats://HOST:PORT",
            "nats://127.0.0.1:4222",
            lambda text: _checked(text, role="agent", parents=["nats://x"], nats=text),
        )
    return role, parents, listen, nats, insecure


def _role(text: str) -> str:
    if text not in ROLES:
        raise ValueError(f"expected one of {', '.join(ROLES)}, found {text!r}")
    return "" if text == ROLES[0] else text


def _parents(parents: list[str]) -> list[str]:
    return _checked(parents, role="agent", parents=parents, nats="nats://127.0.0.1:4222")


def _listen(text: str) -> str:
    return _checked(text, role="orchestrator", listen=text, nats="nats://127.0.0.1:4222", insecure=True)


def _listen_here(text: str) -> str:
    return _checked(text, role="orchestrator", listen=text, nats="nats://127.0.0.1:4222")


def _checked(value: T, **place: Any) -> T:
    """The value, when a node.toml takes it at this place of [mesh]. Raises ValueError."""
    import msgspec

    from host import config

    msgspec.convert(place, config.Mesh)
    return value


def _is_sound(**place: Any) -> bool:
    try:
        return _checked(True, **place)
    except ValueError:
        return False


def _confirm(answers: Answers) -> None:
    say("")
    say(f"  {answers.name}, generation {answers.generation}, in {answers.state}")
    say(f"  owner      {answers.owner_key}{' (to be made)' if answers.make_owner_key and not answers.owner_key.exists() else ''}")
    say(f"  registry   {answers.registry or 'none'}")
    say(f"  authors    {', '.join(map(str, answers.trust)) or 'none yet'}")
    say(f"  skills may ask for {answers.allow or 'nothing'}")
    if answers.role:
        parents = f" of {', '.join(answers.parent)}" if answers.parent else ""
        say(f"  mesh       {answers.role}{parents}{f', listens on {answers.listen}' if answers.listen else ''}")
    if not typer.confirm("Make it?", default=True):
        raise typer.Abort
