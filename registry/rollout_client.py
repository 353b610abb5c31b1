"""An operator's side of roll-outs over HTTP. Blocking, for a command line."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from host.core.errors import MalformedData, NetworkError
from host.core.text import safe
from registry.audit import Row
from registry.client import RegistryHttp

EVENT_S_MAX = 60.0
"""A registry says at least every quarter of a minute that it is there."""


class RolloutHttp(RegistryHttp):
    """Speaks of roll-outs with one registry."""

    def compat(self, question: dict[str, Any]) -> dict[str, Any]:
        """The compatibility report; `lines` are for people."""
        return self._ask("POST", "/v1/compat", json.dumps(question).encode())

    def start(self, document: bytes) -> dict[str, Any]:
        """The roll-out as it has begun."""
        return self._ask("POST", "/v1/rollouts", document)

    def act(self, id: str, action: str, document: bytes) -> dict[str, Any]:
        """The roll-out after the action."""
        return self._ask("POST", f"{_path(id)}/{action}", document)

    def rollouts(self) -> list[dict[str, Any]]:
        """One line each, the newest first."""
        found = self._ask("GET", "/v1/rollouts").get("rollouts")
        if not isinstance(found, list):
            raise NetworkError(f"registry {self._url}: answered with something that is not a list of roll-outs")
        return found

    def rollout(self, id: str) -> dict[str, Any]:
        """All about one."""
        return self._ask("GET", _path(id))

    def watch(self, id: str) -> Iterator[dict[str, Any]]:
        """The roll-out at each change, until it ends or the registry does."""
        request = urllib.request.Request(f"{self._url}{_path(id)}/events")
        if self._credentials is not None:
            request.add_unredirected_header("Authorization", self._credentials.basic)
        self.rollout(id)  # says in words what is wrong with the id or the token
        try:
            with urllib.request.urlopen(request, timeout=EVENT_S_MAX) as response:
                for line in response:
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:])
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            raise NetworkError(f"registry {self._url}: the link broke: {safe(reason)}; watch again") from error

    def flag(self, document: bytes) -> dict[str, Any]:
        """The feature flags after a signed change."""
        return self._ask("POST", "/v1/flags", document)

    def flags(self) -> dict[str, Any]:
        """The feature flags that are on."""
        return self._ask("GET", "/v1/flags")

    def audit(self, after: int = 0) -> tuple[list[Row], bytes]:
        """Rows after this one, and the log's signed head. Raises MalformedData."""
        answer = self._ask("GET", f"/v1/audit?after={after}")
        try:
            rows = [Row(r["seq"], r["at_ms"], r["kind"], r["who"], r["detail"], bytes.fromhex(r["hash"])) for r in answer["rows"]]
            return rows, bytes.fromhex(answer["head"])
        except (LookupError, TypeError, ValueError) as error:
            raise MalformedData(f"registry {self._url}: answered with something that is not an audit log: {safe(str(error))}") from error

    def every_row(self) -> Iterator[Row]:
        """The whole log."""
        after = 0
        while True:
            rows, _ = self.audit(after)
            if not rows:
                return
            yield from rows
            if rows[-1].seq <= after:
                raise MalformedData(f"registry {self._url}: its audit log does not go on after row {after}")
            after = rows[-1].seq


def _path(id: str) -> str:
    return f"/v1/rollouts/{quote(id, safe='')}"
