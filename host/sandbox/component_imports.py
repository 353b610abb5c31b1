"""What a component's imports do: the services of `host/sandbox/imports.py` behind the typed functions of skill.wit, counted and charged for one instance."""

from collections.abc import Callable
from typing import Any

from wasmtime import Store

from host.core import cbor
from host.core.capabilities import FLAGS
from host.core.errors import HostCallsExceeded
from host.core.limits import Limits
from host.core.manifest import SkillLimits
from host.sandbox.imports import LEVELS, OVER_CALLS, OVER_FUEL, STATE_STORED, HostServices

MOTION = "motion"


class Serving:
    """Answers one instance. `host_calls` counts those of the call that is running, or ran last."""

    def __init__(self, skill: str, services: HostServices, store: Store, limits: SkillLimits, host: Limits) -> None:
        self._skill, self._services, self._store, self._limits, self._host = skill, services, store, limits, host
        self.host_calls = self._logged_bytes = 0

    def begin(self) -> None:
        """A call begins."""
        self.host_calls = self._logged_bytes = 0

    def log(self, level: str, line: str) -> None:
        text = line.encode()
        self._enter(len(text))
        self._logged_bytes += len(text)
        if self._logged_bytes > self._limits.log_bytes:
            self._services.over_log(self._limits.log_bytes)
        self._services.log(LEVELS.index(level), text)

    def now_ms(self) -> int:
        self._enter()
        return self._services.now_ms()

    def random(self, size: int) -> bytes:
        self._enter(size)
        if size > self._host.component_random_bytes_max:  # on their way each takes 32
            most = self._host.component_random_bytes_max
            raise HostCallsExceeded(f"{self._skill}: asked for {size} random bytes in one host call, at most {most} are given")
        return self._services.random(size)

    def state_get(self, key: str) -> bytes | None:
        name = key.encode()
        self._enter(len(name))
        found = self._services.state_get(name)
        self._pay(len(found or b""))
        return found

    def state_set(self, key: str, value: bytes) -> tuple[bool, str | None]:
        name = key.encode()
        self._enter(len(name) + len(value))
        stored = self._services.state_set(name, value) == STATE_STORED
        return stored, None if stored else "full"

    def flag(self, name: str) -> tuple[bool, Any]:
        good, answer = self._ask(FLAGS, cbor.encode({"flag": name}))
        return good, answer["on"] if good else answer

    def motion(self, command: dict[str, Any]) -> tuple[bool, Any]:
        return self._ask(MOTION, cbor.encode(command))

    def ask(self, capability: str, request: bytes) -> tuple[bool, Any]:
        failed, answer = self._call(capability, request)
        return not failed, cbor.decode(answer, "error reply") if failed else answer

    def _ask(self, capability: str, request: bytes) -> tuple[bool, Any]:
        failed, answer = self._call(capability, request)
        return not failed, cbor.decode(answer, f"reply of {capability}")

    def _call(self, capability: str, request: bytes) -> tuple[bool, bytes]:
        name = capability.encode()
        self._enter(len(name) + len(request))
        failed, answer = self._services.call(name, request, self._host.driver_reply_bytes_max)
        self._pay(len(answer))
        return failed, answer

    def _enter(self, moved_bytes: int = 0) -> None:
        self.host_calls += 1
        if self.host_calls > self._limits.host_calls:
            self._services.over_budget(OVER_CALLS, self._limits.host_calls)
        self._pay(self._host.host_call_fuel + moved_bytes)

    def _pay(self, price: int) -> None:
        # The guest's own instructions cost fuel; a host call would cost nearly none.
        left = self._store.get_fuel()
        self._store.set_fuel(max(0, left - price))
        if left < price:
            self._services.over_budget(OVER_FUEL, self._limits.host_calls)


SERVED: dict[tuple[str, str], Callable[..., Any]] = {
    ("log", "write"): Serving.log,
    ("clock", "now-ms"): Serving.now_ms,
    ("random", "get-bytes"): Serving.random,
    ("state", "get"): Serving.state_get,
    ("state", "set"): Serving.state_set,
    ("feature-flags", "is-on"): Serving.flag,
    (MOTION, "execute"): Serving.motion,
    ("drivers", "ask"): Serving.ask,
}
"""Who answers each function of skill.wit."""
