"""Makes two versions of a large skill that differ in one function, with the compiler and the steps of `snapcount skill build`."""

import random
from pathlib import Path

from nacl.signing import SigningKey

from host.core.bundle import with_signature
from sdk import build, project, scaffold

NAME, OLD, NEW = "push-bench", "0.1.0", "0.1.1"
RULES_PER_MIB = 3_100
STEPS_PER_RULE = 10
CELLS = 64
# What is changed in the middle of the new version: one function becomes longer, as after a fix.
FIX = "for (int step = 0; step < 9; step++) x = x * 1.25 + cells[step];"


def versions(folder: Path, size_mib: int) -> tuple[bytes, bytes]:
    """Two signed bundles of about `size_mib` each, the later with one function changed. The same bytes every time."""
    made = scaffold.create(folder, NAME, "c")
    main = made / "src" / "main.c"
    template = main.read_text()
    changed = template.replace("(1 + request->margin);", "(1 + request->margin) + rules(cost);")
    assert changed != template, "the template's bid is no more what this relies on"
    main.write_text("double rules(double x);\n" + changed)
    count = size_mib * RULES_PER_MIB
    return _version(made, OLD, rules(count)), _version(made, NEW, rules(count, changed=count // 2))


def rules(count: int, *, changed: int | None = None) -> str:
    """C of `count` functions that call each other, each some 340 bytes of WebAssembly."""
    seeded = random.Random(count)
    lines = [f"double rules(double x);\nstatic volatile double cells[{CELLS}];"]
    for number in range(count):
        steps = [_step(seeded, even=bool(step % 2)) for step in range(STEPS_PER_RULE)] + ([FIX] if number == changed else [])
        call = f" + rule_{number - 1}(y, x)" if number else ""
        lines.append(
            f"__attribute__((noinline)) static double rule_{number}(double x, double y) {{ {' '.join(steps)} return x - y{call}; }}"
        )
    lines.append(f"double rules(double x) {{ return rule_{count - 1}(x, 1); }}")
    return "\n".join(lines) + "\n"


def _step(seeded: random.Random, *, even: bool) -> str:
    sign, number, cell = seeded.choice("+-*"), seeded.uniform(-1e6, 1e6), seeded.randrange(CELLS)
    if even:
        return f"x = x {sign} (cells[{cell}] > {number:.6f} ? y : {number / 3:.6f});"
    return f"y = y {sign} x * {number:.6f}; cells[{cell}] = y;"


def _version(folder: Path, version: str, source: str) -> bytes:
    (folder / "src" / "rules.c").write_text(source)
    about = folder / project.FILE
    about.write_text(about.read_text().replace(f'version = "{OLD}"', f'version = "{version}"'))
    built = build.build(project.load(folder))
    return with_signature(built.read_bytes(), SigningKey(b"a" * 32), f"{NAME} {version}")
