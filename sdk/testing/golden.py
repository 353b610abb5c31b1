"""Golden vectors: what a skill answered, written down as a vector, and shown as a diff where it has changed since."""

import difflib
import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from host.core import cbor, files
from host.core.errors import MalformedData, SkillRefused, SnapcountError, TooLarge, UsageError
from host.plugins.contract import Shape
from sdk import vectors
from sdk.testing.outcome import Outcome, outcome_of

if TYPE_CHECKING:
    from sdk.testing.host import Asked, Job

WIDTH = 140


def of_calls(asked: Sequence["Asked"], about: str, **more: Any) -> dict[str, Any]:
    """The last call as a vector, the calls before it as `before`. Raises UsageError where a vector cannot say that."""
    if not asked:
        raise UsageError("there is no call yet to save as a vector")
    *before, last = asked
    if len({one.hook for one in asked}) > 1:
        raise UsageError("a vector is of one hook, and other hooks were called before; reset the host first")
    if any(one.error is not None for one in before):
        raise UsageError("a call before the last one was not answered; reset the host first, and make calls that are")
    made = described(last.hook, [one.request for one in asked], about, **more)
    if isinstance(last.error, SkillRefused):
        return made | {"error": {"code": last.error.skill_code}}
    if last.error is not None:
        raise UsageError(f"the call ended without a reply, which no vector expects: {last.error}")
    return made | {"reply": shown(last.reply)}


def described(hook: str, requests: "Sequence[Shape | Job]", about: str, **more: Any) -> dict[str, Any]:
    """A vector as it stands in its file, without reply and error. Of a program that is no text, the bytes."""
    made = {"about": about, "hook": hook} | {key: value for key, value in more.items() if value}
    if hook != "plan_job":
        *before, last = map(shown, requests)
        return made | ({"before": before} if before else {}) | {"request": last}
    (job,) = requests if len(requests) == 1 else (None,)
    if job is None:
        raise UsageError("a vector has one program; reset the host before each")
    assert not isinstance(job, Shape)
    program = b"".join(job.program)
    cuts = list(accumulate(map(len, job.program[:-1])))
    return made | {"program": _text(program), "settings": shown(job.settings), "run": job.run} | ({"cuts": cuts} if cuts else {})


def require_repeatable(data: bytes, vector: dict[str, Any]) -> None:
    """Raises UsageError where the vector, run on a host of its own, does not end as the call did: time that was let pass, or state that was there before."""
    if isinstance(vector.get("program"), bytes):
        return
    outcome = vectors.run(data, Path("vector.json"), msgspec.convert(vector, vectors.Vector))
    if outcome.problems:
        raise UsageError(f"on a host of its own the call ends otherwise, so a vector cannot say it: {outcome.problems[0]}")


def save(path: Path, vector: dict[str, Any]) -> str:
    """Writes a vector, and a program that is no text beside it. Gives back how it differs from the file before, as a diff; empty for no difference."""
    if isinstance(vector.get("program"), bytes):
        beside = path.with_suffix(".bin")
        files.write_atomic(beside, vector["program"])
        vector = {key: value for key, value in vector.items() if key != "program"} | {"program_file": beside.name}
    try:
        text = written(vector)
    except ValueError as error:
        raise UsageError(f"{path}: a vector cannot hold a number that is not finite") from error
    before = path.read_text() if path.exists() else ""
    if text != before:
        files.write_atomic(path, text.encode())
    return difference(before, text, path.name)


def update(data: bytes, path: Path, vector: vectors.Vector) -> str:
    """Writes down what the skill answers now, where that is not what the vector expects, or where it expects nothing yet. The diff; empty for no change.

    Of a reply, a vector keeps the keys that it had. A call that ends without a reply changes nothing.
    """
    if (vector.reply or vector.error) and not vectors.run(data, path, vector).problems:
        return ""
    try:
        found = outcome_of(lambda: vectors.reply(vectors.host_for(data, path, vector), path, vector))
    except SnapcountError:
        return ""
    if found.kind == "fault":
        return ""
    kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("reply", "error")}
    return save(path, kept | _ending(found, vector))


def _ending(found: Outcome, vector: vectors.Vector) -> dict[str, Any]:
    if found.kind == "error":
        return {"error": {"code": found.code}}
    return {"reply": shown(_narrowed(vector.reply, found.reply) if vector.reply else found.reply)}


def _narrowed(expected: Any, found: Any) -> Any:
    """What was found, of the keys that were expected; all of it where something else stands there now."""
    match expected, found:
        case {"cbor": _}, bytes():
            return found
        case dict(), dict():
            return {key: _narrowed(value, found.get(key)) for key, value in expected.items()}
        case list(), list() | tuple() if len(expected) == len(found):
            return [_narrowed(one, other) for one, other in zip(expected, found, strict=True)]
        case _:
            return found


def difference(before: str, after: str, name: str) -> str:
    """A unified diff of two texts; empty where they are the same."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"{name} (before)", f"{name} (now)", lineterm="", n=2)
    return "\n".join(lines)


def shown(value: Any) -> Any:
    """A request or reply as in a vector: bytes are base64, or the CBOR that they hold."""
    plain = value if isinstance(value, dict | list) else msgspec.to_builtins(value, builtin_types=(bytes,))
    return msgspec.to_builtins(_bytes_shown(plain))


def _bytes_shown(value: Any) -> Any:
    match value:
        case dict():
            return {key: _bytes_shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_bytes_shown(inner) for inner in value]
        case bytes():
            return _cbor_shown(value)
        case _:
            return value


def _cbor_shown(value: bytes) -> Any:
    try:
        inner = cbor.decode(value, "bytes")
    except (MalformedData, TooLarge):
        return value
    if not isinstance(inner, dict) or inner != _bytes_shown(inner):  # bytes in bytes would not come back
        return value
    return {"cbor": inner}


def _text(program: bytes) -> str | bytes:
    try:
        return program.decode()
    except UnicodeDecodeError:
        return program


def written(value: dict[str, Any]) -> str:
    """JSON with a line for whatever fits into one. Raises ValueError for a number that JSON does not have."""
    lines = ",\n".join(f"  {json.dumps(key)}: {_written(item, 2, len(key) + 4)}" for key, item in value.items())
    return f"{{\n{lines}\n}}\n"


def _written(value: Any, indent: int, used: int = 0) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(line) + indent + used <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(key, ensure_ascii=False)}: {_written(item, indent + 2, len(key) + 4)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + _written(item, indent + 2) for item in value) + "\n" + " " * indent + "]"
