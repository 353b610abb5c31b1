"""The capability `clock`. `time.time()` asks it too."""

try:
    from wit_world.imports.clock import now_ms  # noqa: F401
except ImportError:
    raise ImportError("snapcount.clock needs the capability `clock`: name it in skill.toml") from None
