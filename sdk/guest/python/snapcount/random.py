"""The capability `random`: bytes that nobody can guess. Python's own `random` gives the same numbers in every instance."""

try:
    from wit_world.imports.random import get_bytes  # noqa: F401
except ImportError:
    raise ImportError("snapcount.random needs the capability `random`: name it in skill.toml") from None
