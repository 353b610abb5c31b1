"""`snapcount skill dev`: builds when a source changes, swaps the version into a running node, and tells what happens there."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from nacl.signing import SigningKey

from host.console.client import EventStream, NodeControl
from host.core.capabilities import BUILT_IN
from host.core.errors import NetworkError, SnapcountError, UsageError
from host.core.manifest import Manifest
from host.plugins.contract import PlanSettings
from sdk import project, vectors
from sdk.build import BuildFailed
from sdk.dev import shown, step
from sdk.dev.sources import Sources
from sdk.dev.step import TRIED
from sdk.vectors import Vector

POLL_S = 0.2
GOODBYE_S_MAX = 5.0
ALL, HELP = "all", "type a vector's name to call it on the node, `all` for every one, or nothing to repeat the last; Ctrl-C ends"
OUTPUT_LINES_MAX = 40
LINE_BYTES_MAX = 1_024

Tell = Callable[[dict[str, Any], list[str]], None]
"""Gets an event, and the lines that say it to people."""


class Session:
    """One developer at one node. `run` is left by an exception alone, as a signal's; then a node that `stays` is as it was before."""

    def __init__(self, folder: Path, state: Path, key: SigningKey, calls: tuple[str, ...], tell: Tell, *, stays: bool) -> None:
        self._folder, self._key, self._tell, self._stays = folder, key, tell, stays
        self._calls, self._last = calls, calls or (ALL,)
        self._control = NodeControl(state)
        self.name = project.load(folder).manifest.name
        self._before = self._active()
        self._number = 0
        self.typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stream: EventStream | None = None
        self._broken: list[SnapcountError] = []

    def run(self) -> None:
        """Raises NetworkError when the node is gone."""
        sources = Sources(self._folder)
        self._stream = self._control.events(f"/v1/events?trial={quote(self.name, safe='')}")
        reader = threading.Thread(target=self._read, args=(self._stream,), name="snapcount-events", daemon=True)
        reader.start()
        try:
            self._step()
            while True:
                self._require_node()
                if sources.changed():
                    self._step()
                self._take_typed()
        finally:
            self._stream.close()
            reader.join(GOODBYE_S_MAX)
            if self._stays:
                self._say_goodbye()

    def listen(self) -> None:
        """Takes lines of standard input as names of vectors, from now on."""
        threading.Thread(target=self._listen, name="snapcount-stdin", daemon=True).start()

    def _listen(self) -> None:
        # Not sys.stdin: a thread that waits inside it would keep the process from ending.
        descriptor, line = sys.stdin.fileno(), b""
        if os.isatty(descriptor) and os.tcgetpgrp(descriptor) != os.getpgrp():
            return  # in the background a terminal is not ours to read from
        while piece := os.read(descriptor, 1):
            line += piece
            if piece == b"\n" or len(line) > LINE_BYTES_MAX:
                self.typed.put(line.decode(errors="replace").strip())
                line = b""

    def _read(self, stream: EventStream) -> None:
        try:
            for event in stream:
                self._tell(event, list(shown.lines(event, self.name)) if self._is_news(event) else [])
        except SnapcountError as error:
            self._broken.append(error)

    def _is_news(self, event: dict[str, Any]) -> bool:
        """What is active is news where it is not what was swapped in here: somebody installed something, or took it off."""
        if event.get("event") != "skills":
            return event.get("event") != "watching"
        return any(skill["name"] == self.name and TRIED not in skill["version"] for skill in event["skills"])

    def _require_node(self) -> None:
        if self._broken:
            raise self._broken[0]

    def _take_typed(self) -> None:
        try:
            line = self.typed.get(timeout=POLL_S)
        except queue.Empty:
            return
        self._last = (line,) if line else self._last
        for name in self._last:
            self._call(name)

    def _step(self) -> None:
        """Builds, tests and swaps in; what goes wrong is told, and what runs goes on running."""
        began = time.monotonic()
        self._number += 1
        self._require_same_name()
        try:
            made = step.make(self._folder, self._before, self._number, self._key, lambda line: self._say("note", line))
            for outcome in made.failed:
                self._say("vector", f"FAILED {outcome.name}: {'; '.join(outcome.problems)}", name=outcome.name)
            self._control.post(f"/v1/trials/{quote(self.name, safe='')}", made.data)
        except BuildFailed as error:
            said = error.output.rstrip().splitlines()
            self._say("refused", f"error: {error}", "what runs goes on", *said[:OUTPUT_LINES_MAX], error=error.code)
            return
        except NetworkError:
            raise
        except SnapcountError as error:
            self._say("refused", f"error: {error}", "what runs goes on", error=error.code)
            return
        passed = len(made.outcomes) - len(made.failed)
        took = f"{time.monotonic() - began:.1f} s"
        self._say(
            "swapped", f"{self.name} {made.version} runs: {passed} of {len(made.outcomes)} vectors pass, {len(made.data)} bytes, {took}", version=made.version,
            passed=passed, failed=len(made.failed),
        )  # fmt: skip
        for name in self._calls:
            self._call(name)

    def _require_same_name(self) -> None:
        """What is tried out is claimed by its name."""
        try:
            now = project.load(self._folder).manifest.name
        except SnapcountError:
            return  # said by the build
        if now != self.name:
            raise UsageError(
                f"the skill is now called {now}, and {self.name} is what this session tries out; start `snapcount skill dev` anew"
            )

    def _call(self, name: str) -> None:
        """Calls a vector's hook on the node; the call is seen in the events."""
        try:
            loaded = project.load(self._folder)
            found = [(path, vector) for path, vector in vectors.load(loaded.vectors) if name in (ALL, path.stem)]
            if not found:
                self._say("note", f"there is no vector {name!r}; {HELP}")
            for path, vector in found:
                if name == ALL and self._stays and may_move(vector, loaded.manifest):
                    self._say("note", f"{path.stem}: may move the node's machine, so it is called by its name alone", name=path.stem)
                else:
                    self._call_one(path, vector)
        except NetworkError:
            raise
        except SnapcountError as error:
            self._say("note", f"error: {error}", error=error.code)

    def _call_one(self, path: Path, vector: Vector) -> None:
        try:
            if vector.hook == "plan_job":
                program = (path.parent / vector.program_file).read_bytes() if vector.program_file else vector.program.encode()
                settings = msgspec.to_builtins(msgspec.convert(vector.settings, PlanSettings))
                self._control.job([program], settings, vector.run)
            elif vector.hook == "self_test":
                self._say("note", f"{path.stem}: a node asks for a self-test when a version comes in, never later")
            else:
                for request in vectors.requests(vector, path.name):
                    self._control.post(f"/v1/hooks/{vector.hook}", msgspec.json.encode(request))
        except NetworkError:
            raise
        except SnapcountError as error:
            # How the skill's own call ended was seen in the events; what kept it from being made was not.
            if error.code in ("usage_error", "malformed_data"):
                self._say("note", f"{path.stem}: {error}", error=error.code)

    def _active(self) -> str:
        return next((skill["version"] for skill in self._control.get("/v1/status")["skills"] if skill["name"] == self.name), "")

    def _say_goodbye(self) -> None:
        """Waits until the node has gone back, and says to what."""
        until = time.monotonic() + GOODBYE_S_MAX
        try:
            while (now := self._active()) != self._before and time.monotonic() < until:
                time.sleep(POLL_S)
        except SnapcountError:
            return  # the node is gone, and what was on trial with it
        self._say("ended", f"{self.name} {now} is active again" if now else f"{self.name} is gone from the node again", version=now)

    def _say(self, event: str, *said: str, **more: Any) -> None:
        self._tell({"event": event, "said": said[0], **more}, list(said))


def may_move(vector: Vector, manifest: Manifest) -> bool:
    """Whether a vector may have the skill ask a driver for something: a program that is only planned does not."""
    return vector.run if vector.hook == "plan_job" else bool(set(manifest.capabilities) - BUILT_IN)
