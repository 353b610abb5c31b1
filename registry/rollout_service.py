"""The controller beside a server's event loop: what is heard is worked off in batches, on a thread, and then told."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from host.core.clock import Clock
from host.core.errors import SnapcountError
from host.core.fleet import Hello, Progress
from host.core.text import safe
from registry.controller import Controller, Gone, Heard, Joined, Tell
from registry.flags import FlagChange
from registry.rollout_document import Action
from registry.rollout_store import Live

GATHER_S = 0.05
"""So long a first report waits for others: one commit for them all."""
TURN_S_MAX = 3_600.0
FAULT_S = 5.0


class RolloutService:
    """`tell` is called on the loop, with a node that is connected and its desired state; it must not block. Use `run` as a task; `close` ends it."""

    def __init__(self, controller: Controller, clock: Clock, tell: Callable[[str, bytes], None], log: Callable[[str, str], None]) -> None:
        self.controller, self.clock = controller, clock
        self._tell, self._log = tell, log
        self._heard, self._changed = asyncio.Event(), asyncio.Event()
        self.closed, self.changes = False, 0

    def seen(self, hello: Hello, key: bytes = b"") -> None:
        """A node said hello on a link that stands; the hello was checked. Raises Flooded."""
        self._hear(Joined(hello, key))

    def report(self, progress: Progress) -> None:
        """A node reported. Raises Flooded."""
        self._hear(progress)

    def gone(self, node: str) -> None:
        """A node's link has ended, and no other of it has taken its place. Raises Flooded."""
        self._hear(Gone(node))

    async def start(self, document: bytes) -> Live:
        """As `Controller.start`."""
        live, tells = await asyncio.to_thread(self.controller.start, document, self.clock.now_ms())
        self._log("info", f"roll-out {live.state.document.id}: started")
        self._after(tells)
        self._heard.set()  # what is due has changed
        return live

    async def act(self, document: bytes, id: str, action_name: str) -> Action:
        """As `Controller.act`."""
        action, tells = await asyncio.to_thread(self.controller.act, document, (id, action_name), self.clock.now_ms())
        self._log("info", f"roll-out {action.id}: {action.action} by an operator")
        self._after(tells)
        self._heard.set()
        return action

    async def flag(self, document: bytes) -> FlagChange:
        """As `Controller.flag`."""
        change, tells = await asyncio.to_thread(self.controller.flag, document, self.clock.now_ms())
        self._log("info", f"feature flag {change.flag}: {'on' if change.on else 'off'} by an operator")
        self._after(tells)
        return change

    async def run(self) -> None:
        """Turns until cancelled. A turn that fails changed nothing, and is tried again."""
        while True:
            try:
                await self._wait()
                self._after(await asyncio.to_thread(self.controller.turn, self.clock.now_ms()))
            except SnapcountError as error:
                self._log("error", f"roll-outs: {error}; trying again")
                await asyncio.sleep(FAULT_S)
            except Exception as error:  # one that nobody foresaw must not end every roll-out
                self._log("error", f"roll-outs: {safe(repr(error))}; trying again")
                await asyncio.sleep(FAULT_S)

    async def changed(self, since: int, seconds: float) -> None:
        """Returns when there are other `changes` than `since`, or after `seconds`."""
        event = self._changed
        if self.changes == since:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()

    def close(self) -> None:
        """Lets those go who watch."""
        self.closed = True
        self._wake_watchers()

    def _hear(self, heard: Heard) -> None:
        self.controller.hear(heard)
        self._heard.set()

    async def _wait(self) -> None:
        """Until something was heard, or is due."""
        due_ms = self.controller.due_ms()
        seconds = TURN_S_MAX if due_ms is None else min(max(due_ms - self.clock.now_ms(), 0) / 1000, TURN_S_MAX)
        with suppress(TimeoutError):
            # asyncio.wait_for of Python 3.11 can lose a cancellation, and then the registry never stops.
            async with asyncio.timeout(seconds):
                await self._heard.wait()
            await asyncio.sleep(GATHER_S)
        self._heard.clear()

    def _after(self, tells: list[Tell]) -> None:
        for node, document in tells:
            self._tell(node, document)
        self._wake_watchers()

    def _wake_watchers(self) -> None:
        self.changes += 1
        event, self._changed = self._changed, asyncio.Event()
        event.set()
