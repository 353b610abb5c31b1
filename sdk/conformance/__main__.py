"""Writes the files of sdk/contract/vectors anew."""

from host.core.files import write_atomic
from sdk.conformance import FOLDER, written
from sdk.conformance.cases import HOOKS, made

for hook in HOOKS:
    write_atomic(FOLDER / f"{hook}.json", written(made(hook)))
