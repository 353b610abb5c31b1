"""Contract files of the guest libraries that are made, not written: `python -m sdk.bindings` writes them anew, a test compares."""

from collections.abc import Collection
from pathlib import Path

from host.plugins.contract import HOOKS
from sdk.bindings import wit
from sdk.bindings.assemblyscript import assemblyscript
from sdk.bindings.described import shapes
from sdk.bindings.javascript import javascript, typescript
from sdk.bindings.rust import rust
from sdk.bindings.signatures import signatures

GUEST = Path(__file__).resolve().parents[1] / "guest"
CONTRACT = GUEST.parent / "contract"
SANDBOX = GUEST.parents[1] / "host" / "sandbox"


def made() -> dict[Path, str]:
    """Each made file and what is to stand in it."""
    described = shapes()
    return {
        GUEST / "rust" / "contract.rs": rust(described),
        GUEST / "assemblyscript" / "contract.ts": assemblyscript(described),
        GUEST / "javascript" / "shapes.js": javascript(described),
        GUEST / "javascript" / "snapcount.d.ts": typescript(described),
        CONTRACT / "skill.wit": wit.document(described, *wit.everything()),
        SANDBOX / "signatures.py": signatures(described),
    }


def world_of(hooks: Collection[str], capabilities: Collection[str]) -> str:
    """The WIT package that a skill with this manifest is compiled against; its world is `skill`. Hooks that this host does not know are left out."""
    return wit.document(shapes(), [hook for hook in hooks if hook in HOOKS], capabilities)
