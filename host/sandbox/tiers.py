"""The two tiers of skills, told apart by the header of the file: core modules, the fast one, and components, the slow one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wasmtime import Module

from host.core import wasm
from host.core.manifest import Manifest
from host.sandbox import engine as core
from host.sandbox.checks import check_bytes, check_types, require_every_hook_named
from host.sandbox.engine import SkillEngine

if TYPE_CHECKING:
    from wasmtime.component import Component


@dataclass(frozen=True)
class Tier:
    """How compiled code of one tier is named, read and checked."""

    name: str

    def engine_id(self) -> str:
        """What compiled code depends on."""
        return core.engine_id()

    def deserialize(self, engine: SkillEngine, path: str) -> "Module | Component":
        """Maps compiled code. Raises WasmtimeError."""
        return Module.deserialize_file(engine.engine, path)

    def check_bytes(self, data: bytes, what: str) -> None:
        """Before compiling. Raises MalformedModule."""
        check_bytes(data, what)

    def check_types(self, engine: SkillEngine, module: Any, manifest: Manifest) -> None:
        """After compiling. Raises MalformedModule or Incompatible."""
        check_types(module, manifest)

    def require_every_hook_named(self, engine: SkillEngine, module: Any, manifest: Manifest) -> None:
        """Raises MalformedModule for a hook that is exported and that the manifest does not list."""
        require_every_hook_named(module, manifest)

    def imports(self, engine: SkillEngine, module: Any) -> list[tuple[str, str]]:
        """What is imported: from where, and the name."""
        return [(imported.module, imported.name or "") for imported in module.imports]

    def exports(self, engine: SkillEngine, module: Any) -> list[str]:
        """What is exported."""
        return [export.name for export in module.exports]


class ComponentTier(Tier):
    """Loads what it needs when it is used: a node without components does without."""

    def engine_id(self) -> str:
        from host.sandbox.component_engine import engine_id

        return engine_id()

    def deserialize(self, engine: SkillEngine, path: str) -> "Module | Component":
        from wasmtime.component import Component

        return Component.deserialize_file(engine.components.engine, path)

    def check_bytes(self, data: bytes, what: str) -> None:
        from host.sandbox.component_checks import check_component_bytes

        check_component_bytes(data, what)

    def check_types(self, engine: SkillEngine, module: Any, manifest: Manifest) -> None:
        from host.sandbox.component_checks import check_component_types

        check_component_types(module, engine.components.engine, manifest)

    def require_every_hook_named(self, engine: SkillEngine, module: Any, manifest: Manifest) -> None:
        from host.sandbox.component_checks import require_exports_named

        require_exports_named(module, engine.components.engine, manifest)

    def imports(self, engine: SkillEngine, module: Any) -> list[tuple[str, str]]:
        from host.sandbox.component_checks import imported

        return list(imported(module, engine.components.engine))

    def exports(self, engine: SkillEngine, module: Any) -> list[str]:
        from host.sandbox.component_checks import exported

        return exported(module, engine.components.engine)


CORE, COMPONENT = Tier("core module"), ComponentTier("component")
TIERS = (CORE, COMPONENT)


def tier_of(data: bytes) -> Tier:
    """The tier of a bundle."""
    return COMPONENT if wasm.is_component(data) else CORE
