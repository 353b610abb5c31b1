"""Compiles one module or component in a process of its own, under limits of memory and time: `python -m host.sandbox.compile_child IN OUT BYTES CPU_S`.

A module of a few kilobytes can make a compiler take a gigabyte or a minute; here that ends this process and nothing else.
Exit codes: 0 compiled, 3 the module is invalid (the reason on stderr, one line). Anything else: a limit was hit.
"""

import os
import resource
import sys

EXIT_INVALID = 3


def main(source: str, target: str, memory_bytes: int, cpu_s: int) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # SIGXCPU comes first, so a SIGKILL is the kernel's for memory
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    os.environ["RUST_BACKTRACE"] = "0"
    from wasmtime import WasmtimeError

    with open(source, "rb") as file:
        data = file.read()
    try:
        compiled = _compiled(data)
    except WasmtimeError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return EXIT_INVALID
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
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
