"""The capability `log`: lines for the node's owner."""

try:
    from wit_world.imports import log as _host
except ImportError:
    raise ImportError("snapcount.log needs the capability `log`: name it in skill.toml") from None


def debug(line: str) -> None:
    _host.write(_host.Level.DEBUG, line)


def info(line: str) -> None:
    _host.write(_host.Level.INFO, line)


def warning(line: str) -> None:
    _host.write(_host.Level.WARNING, line)


def error(line: str) -> None:
    _host.write(_host.Level.ERROR, line)
