"""Compiles one module or component in a process of its own, under limits of memory and time: `python -m host.sandbox.compile_child IN OUT MEMORY_BYTES CPU_S CODE_BYTES`.

A module of a few kilobytes can make a compiler take a gigabyte or a minute; here that ends this process and nothing else.
Exit codes: 0 compiled, 3 the module is invalid (the reason on stderr, one line), 4 its code is larger than it may be. Anything else: a limit was hit.
"""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

EXIT_INVALID = 3
EXIT_LARGE = 4


def main(source: str, target: str, memory_bytes: int, cpu_s: int, compiled_bytes: int) -> int:
    with suppress(OSError):  # where there is no /proc
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # where memory runs out, this process ends, not the host
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # SIGXCPU comes first, so a SIGKILL is the kernel's for memory
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (compiled_bytes, compiled_bytes))
    os.environ["RUST_BACKTRACE"] = "0"
    from wasmtime import WasmtimeError

    with open(source, "rb") as file:
        data = file.read()
    try:
        compiled = _compiled(data)
    except WasmtimeError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return EXIT_INVALID
    if len(compiled) > compiled_bytes:
        print(f"it compiles to {len(compiled)} bytes", file=sys.stderr)
        return EXIT_LARGE
    with open(target, "wb") as file:
        file.write(compiled)
        file.flush()
        os.fsync(file.fileno())
    return 0


def _compiled(data: bytes) -> bytearray:
    from wasmtime import Engine, Module, component

    from host.core import wasm

    if wasm.is_component(data):
        from host.sandbox import component_engine

        return component.Component(Engine(component_engine.config()), data).serialize()
    from host.sandbox import engine

    return Module(Engine(engine.config()), data).serialize()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
