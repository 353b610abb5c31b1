"""The cache of compiled modules and components: native code on disk, so every entry is authenticated before it is mapped.

`STATE/compiled/HEX-ENGINE.cwasm` is the code. `HEX-ENGINE.tag` is a nonce and an AES-256-GCM seal (NIST SP 800-38D) of digest, engine and hooks with
the code as associated data, under a key that never leaves the node. Both are written to temporary files, synced and linked into place. A mapped file
is never written again: changing its bytes would change code that runs, so a bad entry is unlinked (its mapping lives on) and a new file takes the name.
"""

import mmap
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from wasmtime import Module, WasmtimeError

from host.core import cbor, wasm
from host.core.errors import MalformedModule
from host.core.files import storage_error
from host.core.limits import DEFAULT, Limits
from host.core.manifest import Manifest
from host.core.text import safe
from host.sandbox.compiler import compile_module
from host.sandbox.engine import SkillEngine
from host.sandbox.tiers import CORE, TIERS, Tier, tier_of

if TYPE_CHECKING:
    from wasmtime.component import Component

KEY_BYTES = 32
NONCE_BYTES = 12


class CompiledCache:
    """Compiled modules by digest, in one directory, under one key. `rejected` counts entries that were not authentic."""

    def __init__(self, directory: Path, key: bytes, limits: Limits = DEFAULT) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the cache key has {KEY_BYTES} bytes, not {len(key)}")
        self._directory = directory
        self._mac = AESGCM(key)
        self._limits = limits
        self.rejected = 0
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    def _sweep(self) -> None:
        # Code for another version of wasmtime or of the rules is never loaded again.
        known = tuple(f"-{tier.engine_id()}" for tier in TIERS)
        for pattern in ("*.cwasm", "*.tag"):
            for path in self._directory.glob(pattern):
                if not path.stem.endswith(known) and not path.name.startswith("."):
                    path.unlink(missing_ok=True)

    def module(self, engine: SkillEngine, data: bytes, digest: str, manifest: Manifest) -> "Module | Component":
        """The compiled module or component of the bundle `data`, from the cache or compiled now in a child process.

        Raises MalformedModule for a module that breaks a rule of ABI 1, StorageFull when it cannot be kept.
        """
        found = self.load(engine, digest, manifest)
        return self._compile(engine, data, digest, manifest) if found is None else found

    def load(self, engine: SkillEngine, digest: str, manifest: Manifest) -> "Module | Component | None":
        """The module, or None where there is no authentic entry; one that is not authentic is removed."""
        tier = next((tier for tier in TIERS if self._paths(tier, digest)[0].exists()), CORE)
        code, tag = self._paths(tier, digest)
        try:
            with open(tag, "rb", opener=_no_symlink) as file:
                sealed = file.read()
            with open(code, "rb", opener=_no_symlink) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                header = self._mac.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], memoryview(mapped))
                if header != _header(tier, digest, manifest):
                    raise InvalidTag
                return tier.deserialize(engine, f"/proc/self/fd/{file.fileno()}")
        except FileNotFoundError:
            return None
        except (InvalidTag, WasmtimeError, ValueError, OSError):
            self.rejected += 1
            self.drop(digest)
            return None

    def drop(self, digest: str) -> None:
        """Unlinks an entry, so that the next use compiles it anew."""
        for path in (path for tier in TIERS for path in self._paths(tier, digest)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, f"{path.name}: cannot be removed from {self._directory}") from error

    def _compile(self, engine: SkillEngine, data: bytes, digest: str, manifest: Manifest) -> "Module | Component":
        # What is returned was mapped from the file that this process made: an entry of another process may stand there half-published.
        tier = tier_of(data)
        tier.check_bytes(data, manifest.name)
        stem = self._directory / f".tmp-{secrets.token_hex(8)}"
        source, compiled, tag = stem.with_suffix(".wasm"), stem.with_suffix(".cwasm"), stem.with_suffix(".tag")
        try:
            source.write_bytes(data)
            compile_module(source, compiled, manifest.name, self._limits, component=wasm.is_component(data))
            module = tier.deserialize(engine, str(compiled))
            tier.check_types(engine, module, manifest)
            self._seal(tier, compiled, tag, digest, manifest)
            self._publish(tier, compiled, tag, digest)
            return module
        except WasmtimeError as error:
            reason = str(error).partition("Caused by:")[2] or str(error)  # what stands before names a temporary file
            raise MalformedModule(f"{manifest.name}: the compiled module cannot be loaded: {safe(' '.join(reason.split()))}") from error
        except OSError as error:
            raise storage_error(error, f"{manifest.name}: the compiled module cannot be kept") from error
        finally:
            for path in (source, compiled, tag):
                path.unlink(missing_ok=True)

    def _seal(self, tier: Tier, compiled: Path, tag: Path, digest: str, manifest: Manifest) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        with tag.open("xb") as file:
            file.write(nonce + self._mac.encrypt(nonce, _header(tier, digest, manifest), compiled.read_bytes()))
            file.flush()
            os.fsync(file.fileno())

    def _publish(self, tier: Tier, compiled: Path, tag: Path, digest: str) -> None:
        # link() fails where the name is taken, so nothing that may be mapped is ever replaced.
        self.drop(digest)
        for source, target in zip((compiled, tag), self._paths(tier, digest), strict=True):
            try:
                os.link(source, target)
            except FileExistsError:
                return  # another process of this node was faster; its entry is authenticated like any other

    def _paths(self, tier: Tier, digest: str) -> tuple[Path, Path]:
        stem = f"{digest.removeprefix('sha256:')}-{tier.engine_id()}"
        return self._directory / f"{stem}.cwasm", self._directory / f"{stem}.tag"


def _no_symlink(path: str, flags: int) -> int:
    # What a link points at lies where others may write, and stays mapped after it was authenticated.
    return os.open(path, flags | os.O_NOFOLLOW)


def _header(tier: Tier, digest: str, manifest: Manifest) -> bytes:
    # The hooks are sealed in, because their types were checked for these names only.
    return cbor.encode([digest, tier.engine_id(), list(manifest.hooks)])
