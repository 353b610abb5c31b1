"""The fenced blocks of the guide's pages, each with what it is and what is said of it in the comments right before it.

A comment stands on a line of its own before the block, and readers do not see it:

- `<!-- not run: REASON -->`: the block is only shown; tests print the reason, and bound how many there are;
- `<!-- file: PATH -->`: the block is the content of this file, which is written before the page goes on;
- `<!-- exit: CODE -->`: the last command ends with this code, as an error that the page shows;
- `<!-- answers: WORDS -->`: what the reader answers when a command asks, a line for each word;
- `<!-- within: N s -->`: the command is run again until it prints what is shown, for so long.

`<!-- before: COMMANDS -->`, which may have several lines, is a block of its own: what the reader has already (keys, a node) when the page begins.
"""

import re
from dataclasses import dataclass
from pathlib import Path

COMMANDS = {"sh", "console"}
LANGUAGES = {"zig": "zig", "c": "c", "rust": "rust", "typescript": "assemblyscript", "javascript": "javascript"}
# Besides commands and languages: `python` is run, `toml` and `json` are checked, `text` is what something prints, the others are shown with a file's name.
KINDS = COMMANDS | set(LANGUAGES) | {"python", "toml", "json", "text", "cddl", "wit", "gcode", "udev"}
SAID = {"not run", "file", "exit", "answers", "within"}
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_COMMENT = re.compile(r"^\s*<!--\s*(?P<key>[a-z ]+?):\s*(?P<value>.*?)\s*-->\s*$", re.DOTALL)


class BadPage(Exception):
    """A page that says something that the guide's tests do not understand."""


@dataclass(frozen=True)
class Block:
    """One fenced block, or one comment `before`, whose kind is `before`. `line` counts from 1 and is the fence's own."""

    page: str
    line: int
    kind: str
    text: str
    said: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def parse(page: str, text: str) -> list[Block]:
    """The blocks in order. Raises BadPage for one without a kind, for an unknown kind or comment, and for a fence that is never closed."""
    found: list[Block] = []
    said: dict[str, str] = {}
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        if fence := _FENCE.match(line):
            end = _closing(page, lines, number, fence)
            if block := _block(page, lines, number, end, fence, said):
                found.append(block)
            said, number = {}, end + 1
            continue
        if line.lstrip().startswith("<!--"):
            last = next((n for n in range(number, len(lines)) if "-->" in lines[n]), None)
            if last is None:
                raise BadPage(f"{page}:{number + 1}: a comment that is never closed")
            comment = _COMMENT.match("\n".join(lines[number : last + 1]))
            if comment and comment["key"] == "before":
                found.append(Block(page, number + 1, "before", comment["value"] + "\n", {}))
            elif comment and comment["key"] in SAID and comment["value"]:
                said[comment["key"]] = comment["value"]
            elif not line.lstrip().startswith("<!-- generated"):
                raise BadPage(
                    f"{page}:{number + 1}: expected a comment {', '.join(sorted(SAID))} or before, with a value; found {line.strip()!r}"
                )
            number = last + 1
            continue
        if line.strip() and said:
            raise BadPage(f"{page}:{number + 1}: a comment for a block, and no block after it: {said}")
        number += 1
    return found


def _closing(page: str, lines: list[str], start: int, fence: re.Match[str]) -> int:
    closing = re.compile(rf"^ *{re.escape(fence['fence'][0])}{{{len(fence['fence'])},}}\s*$")
    for number in range(start + 1, len(lines)):
        if closing.match(lines[number]):
            return number
    raise BadPage(f"{page}:{start + 1}: a block that is never closed")


def _block(page: str, lines: list[str], start: int, end: int, fence: re.Match[str], said: dict[str, str]) -> Block | None:
    kind = fence["info"].strip()
    if kind.startswith("{"):
        return None  # a directive of the generator, which checks it itself
    if kind not in KINDS:
        raise BadPage(f"{page}:{start + 1}: expected a block of a kind, {', '.join(sorted(KINDS))}; found {kind or 'none'!r}")
    indent = len(fence["indent"])
    text = "".join(line[indent:] + "\n" for line in lines[start + 1 : end])
    return Block(page, start + 1, kind, text, said)


def pages(root: Path) -> list[Path]:
    """Every page of the guide: README.md and all Markdown below docs/, in order."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a block and what it shows of each one's output: nothing in `sh`, the lines up to the next `$ ` in `console`."""
    if block.kind != "console":
        return [(command, "") for command in split(block.text)]
    found: list[tuple[list[str], list[str]]] = []
    for line in block.text.split("\n")[:-1]:
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0].append(line[2:])
        elif found:
            found[-1][1].append(line)
        else:
            raise BadPage(f"{block.where}: expected a line that begins with `$ `; found {line!r}")
    return [("\n".join(command), "\n".join(output)) for command, output in found]


_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)")


def split(script: str) -> list[str]:
    """A script's commands, each with the lines that continue it: after a backslash, within quotes, up to the end of a here-document or of a `for`."""
    found: list[str] = []
    held: list[str] = []
    for line in script.split("\n"):
        if not held and (not line.strip() or line.lstrip().startswith("#")):
            continue
        held.append(line)
        if _complete("\n".join(held)):
            found.append("\n".join(held))
            held = []
    return found + (["\n".join(held)] if any(part.strip() for part in held) else [])


def _complete(command: str) -> bool:
    lines = command.split("\n")
    if lines[-1].endswith("\\"):
        return False
    if (document := _HEREDOC.search(lines[0])) and lines[-1].strip() != document[1]:
        return False
    words = re.sub(r"(?<!\S)#.*", "", re.sub(r"'[^']*'|\"[^\"]*\"", "", command))
    if "'" in words or '"' in words:
        return False
    return len(re.findall(r"(?:^|[;\s])do(?=\s|$)", words)) <= len(re.findall(r"(?:^|[;\s])done(?=[;\s]|$)", words))


def uncommented(command: str) -> str:
    """A command without its comment. A `#` within quotes, or inside a word, begins none."""
    quote = ""
    for at, char in enumerate(command):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and (at == 0 or command[at - 1].isspace()):
            return command[:at].rstrip() + command[at:].partition("\n")[1] + command[at:].partition("\n")[2]
    return command


def shows(expected: str, found: str) -> bool:
    """Whether a command printed what the page shows. `…` stands for anything within a line, and alone on a line for any lines."""
    parts = [
        r"(?:.*\n)*?" if line.strip() == "…" else ".*?".join(map(re.escape, line.rstrip().split("…"))) + r"[ \t]*\n"
        for line in expected.rstrip("\n").split("\n")
    ]
    return re.fullmatch("".join(parts), found.rstrip("\n") + "\n") is not None
