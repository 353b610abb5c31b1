"""A bundle's manifest in words: names as lists, bounds with their units."""

from typing import Any

Row = tuple[str, str]

TITLES = {"name", "version"}  # stand above the table
LIMITS = {
    "fuel": ("fuel", "units"), "deadline_ms": ("deadline", "ms"), "memory_bytes": ("memory", "bytes"), "reply_bytes": ("reply", "bytes"),
    "host_calls": ("host calls", ""), "log_bytes": ("log", "bytes"),
}  # fmt: skip


def rows(manifest: dict[str, Any]) -> list[Row]:
    """Each field that says something, and what it says. `manifest` is the manifest as builtins."""
    return [row for field, value in manifest.items() if field not in TITLES for row in _rows(field, value)]


def amount(value: int, unit: str) -> str:
    """`1048576` bytes as `1 MiB`, where it comes out even; anything else with separators."""
    if unit == "bytes":
        for factor, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= factor and value % factor == 0:
                return f"{value // factor:,} {name}"
    return f"{value:,} {unit}".strip()


def _rows(field: str, value: Any) -> list[Row]:
    match field, value:
        case "limits", dict():
            return [(name, "none" if value[key] == 0 else f"at most {amount(value[key], unit)}") for key, (name, unit) in LIMITS.items()]
        case "hooks" | "features", _:
            return [(field, ", ".join(value) or "none")]
        case "capabilities", _:
            return [(field, ", ".join(value) or "none: it can compute, and that is all")]
        case "generations", _:
            return [(field, ", ".join(map(str, value)) or "every one")]
        case "messages", _:
            return [(field, ", ".join(f"{one['name']} {_versions(one)}" for one in value) or "none")]
        case "host_min", _:
            return [("host", f"{value} or newer")]
        case "instance", _:
            return [(field, "fresh for each call" if value == "fresh" else "persistent: kept from call to call")]
        case "description" | "license", "":
            return []
        case _:
            return [(field, str(value))]


def _versions(message: dict[str, Any]) -> str:
    low, high = message["min"], message["max"]
    return f"version {low}" if low == high else f"versions {low} to {high}"
