"""Compiles a small module as a skill is compiled, and calls it: `python -m host.doctor.trial EMPTY_DIRECTORY`.

In a process of its own, since a system that forbids what the sandbox needs may end it without an error that could be caught.
"""

import sys
from pathlib import Path

from wasmtime import Func, Instance, Module, Store, Trap, WasmtimeError

from host.core.errors import SnapcountError
from host.sandbox.compiler import compile_module
from host.sandbox.engine import default_engine

# (module (func (export "f") (result i32) i32.const 7))
MODULE = bytes.fromhex("0061736d01000000 0105016000017f 03020100 07050101660000 0a0601040041070b")
ANSWER = 7


def main(directory: Path) -> int:
    """0 when the answer was right; the reason on stderr when it was not."""
    source, target = directory / "trial.wasm", directory / "trial.cwasm"
    try:
        source.write_bytes(MODULE)
        compile_module(source, target, "a small skill")
        engine = default_engine().engine
        store = Store(engine)
        store.set_fuel(1_000)
        store.set_epoch_deadline(1_000)
        function = Instance(store, Module.deserialize_file(engine, str(target)), []).exports(store)["f"]
        assert isinstance(function, Func)
        answer = function(store)
    except (SnapcountError, OSError, WasmtimeError, Trap, MemoryError) as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        return 1
    if answer != ANSWER:
        print(f"expected {ANSWER}, it answered {answer!r}", file=sys.stderr)
    return int(answer != ANSWER)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
