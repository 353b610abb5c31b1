"""Makes text from outside safe for a terminal, a log line or an error."""


def safe(text: str | bytes, characters_max: int = 300) -> str:
    """One line without control, bidirectional-override or invisible characters, at most `characters_max` long and then an ellipsis.

    What is dropped is shown as its escape, so that nothing disappears: `\\x1b`, `\\u202e`.
    """
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    out: list[str] = []
    for character in decoded[:characters_max]:
        # str.isprintable: all but controls, formats (bidi, zero width), surrogates, private and unassigned, and separators other than the space.
        if not character.isprintable():
            out.append(character.encode("unicode_escape").decode())
        else:
            out.append(character)
    shown = "".join(out)
    return shown[:characters_max] + ("…" if len(decoded) > characters_max or len(shown) > characters_max else "")
