"""How a client proves to an OCI registry who it is: HTTP Basic (RFC 7617), or the token flow of Docker registries (RFC 6750 with realm, service and scope).

`Authorizer` decides and does no I/O: it is told of a 401 and says what to ask next, so that both clients, async and blocking, behave alike.
"""

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import msgspec

from host.core.errors import NetworkError, OciRefused, UsageError
from host.core.text import safe

CHALLENGE_CHARACTERS_MAX = 8192
TOKEN_CHARACTERS_MAX = 16 << 10
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"([^"\\]*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=[\s,]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Credentials:
    """A name and its secret."""

    name: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Credentials":
        """`NAME:SECRET`. Raises UsageError, which does not show the secret."""
        name, separator, secret = text.partition(":")
        if not separator or not name or not secret or not text.isprintable():
            raise UsageError("expected a token as NAME:SECRET, as `snapcount registry token new` prints it")
        return cls(name, secret)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.secret}".encode()).decode()


@dataclass(frozen=True)
class TokenRequest:
    """A GET that answers with a token as JSON; `authorization` may be empty."""

    url: str
    authorization: str


class _Token(msgspec.Struct, frozen=True):
    # Docker's older registries say `token`, RFC 6749 says `access_token`; the other fields do not matter here.
    token: str = ""
    access_token: str = ""


class Authorizer:
    """The Authorization header of one registry and repository; `header` is empty until a challenge was answered."""

    def __init__(self, base: str, repository: str, actions: str, credentials: Credentials | None) -> None:
        self.header = ""
        self._base, self._repository, self._actions, self._credentials = base, repository, actions, credentials
        self._tried = False

    def challenged(self, header: str, what: str) -> TokenRequest | None:
        """Answers a 401: the request to make for a token, or None when the same request can be repeated. Raises OciRefused when nothing helps."""
        if self._tried:
            raise OciRefused(f"{what}: the registry does not take these credentials for {self._actions}", "UNAUTHORIZED", 401)
        self._tried = True
        known = _challenges(header)
        if "bearer" in known and known["bearer"].get("realm"):
            return self._token_request(known["bearer"], what)
        if "basic" in known and self._credentials is not None:
            self.header = self._credentials.basic
            return None
        raise OciRefused(f"{what}: the registry wants a token; give one as NAME:SECRET", "UNAUTHORIZED", 401)

    def accepted(self) -> None:
        """A request was not answered with 401. A token may expire, so a later challenge may be answered again."""
        self._tried = False

    def take(self, answer: bytes, what: str) -> None:
        """Reads the token that a TokenRequest was answered with. Raises NetworkError."""
        try:
            found = msgspec.json.decode(answer, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NetworkError(f"{what}: its token service answered with something that is no token") from error
        token = found.token or found.access_token
        if not token or len(token) > TOKEN_CHARACTERS_MAX or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
            raise NetworkError(f"{what}: its token service answered with something that is no token")
        self.header = f"Bearer {token}"

    def _token_request(self, challenge: dict[str, str], what: str) -> TokenRequest:
        realm = challenge["realm"]
        parts = urlsplit(realm)
        secure = self._base.startswith("https://")
        # A secret that was given for TLS is not sent in the clear because a challenge says so.
        if not parts.netloc or parts.scheme not in (("https",) if secure else ("http", "https")) or safe(realm, 2048) != realm:
            raise NetworkError(f"{what}: names a token service that cannot be asked: {safe(realm)!r}")
        # The challenge is about one request; the token is for all that are to come.
        kind, _, rest = challenge.get("scope", "").partition(":")
        resource = rest.rpartition(":")[0] if kind == "repository" else ""
        scope = f"repository:{resource or self._repository}:{self._actions}"
        query = f"service={quote(challenge.get('service', ''), safe='')}&scope={quote(scope, safe='')}"
        url = f"{realm}{'&' if parts.query else '?'}{query}"
        return TokenRequest(url, self._credentials.basic if self._credentials else "")


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """The parameters of each scheme of a WWW-Authenticate header, by the scheme's name in lower case."""
    header = header[:CHALLENGE_CHARACTERS_MAX]
    starts = [*_SCHEME.finditer(header)]
    ends = [*(match.start() for match in starts[1:]), len(header)]
    found: dict[str, dict[str, str]] = {}
    for match, end in zip(starts, ends, strict=True):
        parameters = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(header[match.end() : end])}
        found.setdefault(match.group(1).lower(), parameters)
    return found
