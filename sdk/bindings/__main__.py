"""Writes the made files anew."""

from host.core.files import write_atomic
from sdk.bindings import made

for path, text in made().items():
    write_atomic(path, text.encode())
