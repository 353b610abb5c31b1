"""The author's own key: what signs a skill where no other key is named."""

import os
from collections.abc import Callable
from pathlib import Path

from nacl.signing import SigningKey

from host.core import files, keys

FILE = "author.key"


def author_key(say: Callable[[str], None]) -> SigningKey:
    """The key in `author.key` here, else the one in the user's configuration, which is made at first use, and said. Raises StateDamaged, StorageFull, HostFault."""
    here, kept = Path(FILE), place()
    for path in (here, kept):
        if path.exists():
            return keys.load(path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise files.storage_error(error, f"{kept.parent}: cannot be made") from error
    made = keys.create(kept, os.urandom(keys.SEED_BYTES))
    say(
        f"made your key as an author, {kept}: keep it secret, and keep a copy; nodes that trust {kept.with_suffix('.pub')} run what it signs"
    )
    return made


def place() -> Path:
    """Where a user's key is kept, below XDG_CONFIG_HOME."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "snapcount" / FILE
