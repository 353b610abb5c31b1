"""The operator's side of a push: uploads a bundle, announces it, and follows what the nodes report. Blocking, for a command line."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from host.core.errors import NetworkError, TooLarge, UntrustedInput, UsageError
from host.core.oci_auth import Credentials
from host.core.text import safe

POLL_S = 0.1
TOKEN_VARIABLE = "SNAPCOUNT_TOKEN"
OPERATED = "operated"
DECIDED = ("active", "failed", "away", OPERATED)
"""away: it left before it was done, and is told again when it comes back. operated: it takes bundles by its operators' roll-outs only."""
TIMEOUT_S = 30.0
JSON_BYTES_MAX = 64 << 20


class RegistryHttp:
    """Speaks to one registry, with a token (`NAME:SECRET`) where one is given or the environment has one."""

    def __init__(self, url: str, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"expected the registry's address as http://HOST:PORT, found {safe(url)!r}")
        if safe(url) != url:
            raise UsageError(f"registry {safe(url)}: an address is one line without control characters")
        self._url = url.rstrip("/")
        token = token or os.environ.get(TOKEN_VARIABLE, "")
        self._credentials = Credentials.parse(token) if token else None

    def upload(self, data: bytes) -> dict[str, Any]:
        """Keeps the bundle in the registry; its announcement."""
        return self._ask("POST", "/v1/bundles", data)

    def announce(self, digest: str) -> dict[str, Any]:
        """Tells every node; `nodes` is how many are connected."""
        return self._ask("POST", "/v1/announcements", json.dumps({"digest": digest}).encode())

    def withdraw(self, name: str) -> None:
        """Announces a skill no more. Raises UntrustedInput when it is not announced."""
        self._ask("DELETE", f"/v1/announcements/{quote(name, safe='')}")

    def police(self, document: bytes) -> dict[str, Any]:
        """Keeps a signed quarantine policy and sends it to every node; `nodes` is how many are connected."""
        return self._ask("POST", "/v1/policies", document)

    def fleet(self) -> dict[str, Any]:
        """The nodes and what they last reported."""
        return self._ask("GET", "/v1/fleet")

    def follow(self, digest: str, seconds: float) -> Iterator[dict[str, dict[str, Any]]]:
        """The state of a push at each change: node name → `{state, code, message}`. Ends when every connected node has decided, or after `seconds`."""
        until = time.monotonic() + seconds
        last: dict[str, dict[str, Any]] | None = None
        while True:
            try:
                states = _states(self.fleet(), digest)
            except (LookupError, TypeError) as error:
                raise NetworkError(f"registry {self._url}: answered with something that is not a fleet") from error
            if states != last:
                last = states
                yield states
            if all(state["state"] in DECIDED for state in states.values()) or time.monotonic() > until:
                return
            time.sleep(POLL_S)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/octet-stream"}
        try:
            request = urllib.request.Request(self._url + path, data=body, method=method, headers=headers)
            if self._credentials is not None:
                request.add_unredirected_header("Authorization", self._credentials.basic)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                raw = response.read(JSON_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            raise NetworkError(f"registry {self._url}: {safe(reason)}; is it running (`snapcount registry serve`)?") from error
        if len(raw) > JSON_BYTES_MAX:
            raise TooLarge(f"registry {self._url}: answered with more than {JSON_BYTES_MAX} bytes")
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise NetworkError(f"registry {self._url}: answered with something that is not JSON") from error
        if not isinstance(answer, dict):
            raise NetworkError(f"registry {self._url}: answered with something that is not a JSON object")
        return answer


def _refusal(error: urllib.error.HTTPError) -> UntrustedInput | UsageError | NetworkError:
    try:
        said = json.loads(error.read(4096))
        message = safe(str(said["message"]))
    except (ValueError, KeyError, TypeError, OSError, RecursionError, http.client.HTTPException):
        return NetworkError(f"the registry answered {error.code} {safe(error.reason)}")
    return NetworkError(f"the registry: {message}") if error.code >= 500 else UntrustedInput(f"the registry refused it: {message}")


def _states(answer: dict[str, Any], digest: str) -> dict[str, dict[str, Any]]:
    """Every node that is connected or has reported on this bundle."""
    states: dict[str, dict[str, Any]] = {}
    for row in answer["nodes"]:
        report = next((p for p in row["progress"] if p["digest"] == digest), None)
        if any(skill["digest"] == digest for skill in row["skills"]):
            report = {"state": "active", "code": "", "message": ""}
        if report is not None and report["state"] != "failed" and not row["connected"]:
            report = report | {"state": "away"}  # whatever it ran when it was last heard of
        if report is not None:
            states[row["node"]] = {key: report[key] for key in ("state", "code", "message")}
        elif row["connected"]:
            states[row["node"]] = {"state": "pending" if row.get("announcements", True) else OPERATED, "code": "", "message": ""}
    return states
