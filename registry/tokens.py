"""Who may do what in a registry: tokens with scopes, and what is allowed without one.

`tokens.json` keeps of each token a SHA-256 only. That is enough: a token's secret is 256 random bits, so there is nothing to guess it from.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from host.core import files, oci
from host.core.clock import Clock
from host.core.errors import StateDamaged, TooLarge, UsageError
from host.core.limits import DEFAULT
from host.core.text import safe
from registry.problem import refusal

FILE = "tokens.json"
SECRET_BYTES = 32
Scope = Literal["pull", "push", "delete"]
Anonymous = Literal["none", "pull", "push"]
GLOB = r"^[a-z0-9._/*?-]{1,255}\Z"
# Without a token nothing is ever deleted.
_WITHOUT: dict[str, frozenset[Scope]] = {
    "none": frozenset(), "pull": frozenset({"pull"}), "push": frozenset({"pull", "push"}),
}  # fmt: skip


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token. `repository` is a pattern of names in which `*` stands for anything, slashes too; `expires_s` is Unix time, 0 for never."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=3)]
    repository: Annotated[str, Meta(pattern=GLOB)] = "*"
    expires_s: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True)
class Caller:
    """Who asks: a token, or nobody in particular. `free` is what anybody may: a token takes nothing away."""

    token: Token | None
    free: frozenset[Scope]

    def may(self, scope: Scope, repository: str | None) -> bool:
        """Whether this is allowed in this repository; in some repository for None."""
        if scope in self.free or self.token is None:
            return scope in self.free
        return scope in self.token.scopes and (repository is None or fnmatchcase(repository, self.token.repository))

    def check(self, scope: Scope, repository: str | None) -> None:
        """Raises OciRefused: 401 for nobody in particular, who may have a token, and 403 for a token that does not allow this."""
        if self.may(scope, repository):
            return
        where = f" in {safe(repository, 80)}" if repository else ""
        if self.token is None:
            raise refusal("UNAUTHORIZED", f"to {scope}{where} takes a token; `snapcount registry token new` makes one")
        raise refusal("DENIED", f"token {self.token.name} does not allow to {scope}{where}")


class Tokens:
    """The file of a registry's directory. What another process writes there counts at once."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._path = directory, directory / FILE
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()
        self.all()

    def all(self) -> tuple[Token, ...]:
        """Every token, by name. Raises StateDamaged: then nobody gets in, rather than everybody."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._tokens = msgspec.json.decode(self._path.read_bytes(), type=tuple[Token, ...])
                self._seen = seen
        except FileNotFoundError:
            self._tokens, self._seen = (), None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StateDamaged(f"{self._path}: not a list of tokens ({safe(str(error))}); remove it and make new ones") from error
        return self._tokens

    def new(self, name: str, scopes: Sequence[str], repository: str, expires_s: int) -> str:
        """Makes a token; its secret, which is kept nowhere. Raises UsageError for a name that is taken or a field that is none."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        fields = {"name": name, "sha256": _hash(secret), "scopes": sorted(set(scopes)), "repository": repository, "expires_s": expires_s}
        try:
            made = msgspec.convert(fields, Token)
        except msgspec.ValidationError as error:
            raise UsageError(f"token {safe(name, 64)!r}: {safe(str(error))}") from error
        with files.locked(self._directory, "tokens"):  # so that no revocation is lost to another's write
            known = self.all()
            if any(token.name == name for token in known):
                raise UsageError(f"token {name}: exists; revoke it first")
            if len(known) >= DEFAULT.tokens_max:
                raise TooLarge(f"there are {len(known)} tokens, and no more are made; revoke some")
            self._write((*known, made))
        return secret

    def revoke(self, name: str) -> None:
        """Ends a token. Raises UsageError when there is none of this name."""
        with files.locked(self._directory, "tokens"):  # so that no revocation is lost to another's write
            known = self.all()
            if all(token.name != name for token in known):
                raise UsageError(f"token {safe(name, 64)}: there is none of this name")
            self._write(tuple(token for token in known if token.name != name))

    def _write(self, tokens: tuple[Token, ...]) -> None:
        ordered = sorted(tokens, key=lambda token: token.name)
        files.write_atomic(self._path, msgspec.json.format(msgspec.json.encode(ordered)), 0o600)


class Access:
    """Answers for each request who asks and whether they may. Without a setting, anonymous is `push` on loopback while no token exists, else `pull`."""

    def __init__(self, directory: Path, clock: Clock, anonymous: Anonymous | None = None) -> None:
        self._tokens, self._clock, self._setting = Tokens(directory), clock, anonymous
        self._loopback = True

    def listens_on(self, host: str) -> None:
        """Where the registry is about to listen."""
        self._loopback = oci.is_loopback(host)

    @property
    def anonymous(self) -> Anonymous:
        """What holds without a token, now."""
        if self._setting is not None:
            return self._setting
        return "push" if self._loopback and not self._tokens.all() else "pull"

    @property
    def wants_login(self) -> bool:
        """Whether a client is to say at its first request who it is: those that are told they need not never say it again."""
        return self.anonymous != "push" or bool(self._tokens.all())

    def require(self, request: web.Request, scope: Scope, repository: str | None = None) -> Caller:
        """Who asks. Raises OciRefused unless they may do this in the repository, or for None in any."""
        caller = self.caller(request)
        caller.check(scope, repository)
        return caller

    def caller(self, request: web.Request) -> Caller:
        """Who asks. Raises OciRefused with 401 for credentials that are wrong, whatever is allowed without any."""
        header = request.headers.get("Authorization", "")
        if not header:
            return Caller(None, _WITHOUT[self.anonymous])
        name, secret = _credentials(header)
        if not name and not secret and header.lower().startswith("basic "):
            return Caller(None, _WITHOUT[self.anonymous])  # some clients send an empty login where they have none
        found = _hash(secret)
        for token in self._tokens.all():
            if hmac.compare_digest(token.sha256, found) and name in (None, token.name):
                if token.expires_s and self._clock.now_ms() >= token.expires_s * 1000:
                    raise refusal("UNAUTHORIZED", f"token {token.name} has expired")
                return Caller(token, _WITHOUT[self.anonymous])
        raise refusal("UNAUTHORIZED", "no such token; was it revoked?")


def _credentials(header: str) -> tuple[str | None, str]:
    """Name and secret of Basic; no name and a secret of Bearer. Raises OciRefused for anything else."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return None, value.strip()
    if scheme.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise refusal("UNAUTHORIZED", "expected NAME:SECRET in base64 after Basic") from error
        return name, secret
    raise refusal("UNAUTHORIZED", "expected Basic or Bearer authentication")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
