"""What is on disk of a node's identity and of its owner's decisions: key, certificate, cache key, safety envelope."""

import base64
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from nacl.signing import SigningKey, VerifyKey

from host import config
from host.core import files, keys, safety
from host.core.certificate import ROTATION_S, VALIDITY_S, Claims, issue
from host.core.clock import Clock, Random
from host.core.errors import StateDamaged, UsageError
from host.core.safety import Refusal, SafetyEnvelope, Trip
from host.sandbox.cache import KEY_BYTES

KEY = Path("identity/node.key")
PUBLIC = Path("identity/node.pub")
CERTIFICATE = Path("identity/certificate.cwt")
CACHE_KEY = Path("identity/cache.key")
SAFETY = Path("safety/safety.toml")
SAFETY_SIGNATURE = Path("safety/safety.toml.sig")
TRIP = Path("safety/trip.json")
REGISTRY_LOGIN = Path("identity/registry-login")
CERTIFICATE_ID_BYTES = 16

assert ROTATION_S < VALIDITY_S, "certificates overlap when they rotate"


def load_key(state: Path) -> SigningKey:
    """The node's identity key. Raises StateDamaged when it is missing or others can read it."""
    return keys.load(state / KEY)


def load_certificate(state: Path) -> bytes:
    """The node's certificate, empty when it has none yet."""
    path = state / CERTIFICATE
    return path.read_bytes() if path.exists() else b""


def load_registry_login(state: Path, registry: str) -> dict[str, str]:
    """The login for a registry that lets nobody pull without one: a file of one line `NAME:TOKEN`, as `snapcount registry token new` prints it.

    Empty where there is no such file. Raises StateDamaged for one that others may read, or of another form.
    """
    path = state / REGISTRY_LOGIN
    if not registry or not path.exists():
        return {}
    login = _read(path).strip()
    if path.stat().st_mode & 0o077:
        raise StateDamaged(f"{path}: a login that others can read; expected mode 0600: run chmod 600 and consider the token stolen")
    if b":" not in login or b"\n" in login or len(login) > 1024:
        raise StateDamaged(f"{path}: expected one line NAME:TOKEN")
    return {registry: f"Basic {base64.b64encode(login).decode()}"}


def load_cache_key(state: Path, random: Random) -> bytes:
    """The key of the compiled-code cache; made here at first use, and it never leaves the node."""
    path = state / CACHE_KEY
    if not path.exists():
        files.write_atomic(path, random.token(KEY_BYTES), 0o600)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise StateDamaged(f"{path}: expected {KEY_BYTES} bytes, found {len(key)}; remove it, and modules are compiled anew")
    return key


def load_envelope(state: Path, owner: VerifyKey, audit: Callable[[Refusal], None]) -> SafetyEnvelope:
    """The owner's limits, verified, and whether safe mode was on when the node stopped. Raises SignatureInvalid, StateDamaged, MalformedData."""
    toml, signature = (_read(state / name) for name in (SAFETY, SAFETY_SIGNATURE))
    limits = safety.verify_limits(toml, signature, owner, str(state / SAFETY))
    return SafetyEnvelope(
        limits,
        owner,
        audit=audit,
        on_trip=lambda trip: _keep_trip(state, trip),
        tripped=_load_trip(state),
        node=f"{_read(state / PUBLIC)[8:24].decode()}-",
    )


def config_digest(state: Path) -> str:
    """The digest of everything that the owner decided."""
    return config.digest(*(_read(state / name) for name in (Path(config.FILE), SAFETY, SAFETY_SIGNATURE)))


def sign_safety(state: Path, owner: SigningKey) -> None:
    """Signs STATE/safety/safety.toml as it is now. Raises MalformedData for limits that are not sound, UsageError for another key than the owner's."""
    _require_owner(state, owner)
    files.write_atomic(state / SAFETY_SIGNATURE, safety.sign_limits(owner, _read(state / SAFETY)))


def certify(state: Path, owner: SigningKey, clock: Clock, random: Random) -> Claims:
    """Issues the node's certificate, valid from now for `VALIDITY_S` seconds: for a tier of the mesh with its role, so that it may command."""
    settings = _require_owner(state, owner)
    now_s, tier = clock.now_ms() // 1000, settings.mesh.role
    roles = ("node", tier) if tier not in ("", "agent") else ("node",)
    claims = Claims(
        issuer="owner", subject=settings.node.name, key=bytes(load_key(state).verify_key), roles=roles, generation=settings.node.generation,
        capabilities=settings.capabilities.allowed, not_before_s=now_s, expires_s=now_s + VALIDITY_S, issued_s=now_s, id=random.token(CERTIFICATE_ID_BYTES),
    )  # fmt: skip
    files.write_atomic(state / CERTIFICATE, issue(owner, claims))
    return claims


def _require_owner(state: Path, owner: SigningKey) -> config.NodeConfig:
    settings = config.load(state)
    if bytes(owner.verify_key) != bytes(settings.owner):
        raise UsageError(f"this is not the owner's key of {state}: expected {settings.node.owner}")
    return settings


def create(state: Path, node_toml: str, owner: SigningKey, clock: Clock, random: Random) -> None:
    """Makes a node's state directory. Raises UsageError where one is already."""
    if (state / config.FILE).exists():
        raise UsageError(f"{state} is a node's state directory already; its identity is never made twice")
    if state.exists() and (not state.is_dir() or any(state.iterdir())):
        raise UsageError(f"{state} is not empty; a node's state directory is made new")
    # Beside its place and then renamed, so that a kill half-way leaves no node with half an identity.
    partial = state.with_name(f"{files.TEMPORARY}{state.name}-{random.token(4).hex()}")
    try:
        (partial / KEY).parent.mkdir(parents=True, mode=0o700)
        keys.create(partial / KEY, random.token(keys.SEED_BYTES))
        files.write_atomic(partial / SAFETY, safety.default_toml())
        files.write_atomic(partial / config.FILE, node_toml.encode())
        sign_safety(partial, owner)
        load_cache_key(partial, random)
        certify(partial, owner, clock, random)
        partial.rename(state)
    except OSError as error:
        raise files.storage_error(error, f"{state}: cannot be made") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep_trip(state: Path, trip: Trip | None) -> None:
    if trip is None:
        (state / TRIP).unlink(missing_ok=True)
    else:
        files.write_atomic(state / TRIP, msgspec.json.encode(trip))


def _load_trip(state: Path) -> Trip | None:
    path = state / TRIP
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Trip)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        # Something tripped; that its reason cannot be read makes nothing safer.
        return Trip(f"damaged-{zlib.crc32(str(path).encode()):08x}", 0, f"{path} is damaged")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateDamaged(f"{path}: cannot be read: {error.strerror}") from error
