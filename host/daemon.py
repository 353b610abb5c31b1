"""Runs a node until it is told to stop: the control socket, the mesh, and the link to the registry."""

import asyncio
import ctypes
import gc
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from host.control import ControlServer
from host.core.errors import HostFault
from host.installed import measure_host, require_sealed
from host.meshlink import MeshLink
from host.node import Node, log_line
from host.recording import recording
from host.supply.installer import CRASH_POINTS
from host.supply.watcher import Reach
from host.watchdog import Watchdog

CRASH_AT = "SNAPCOUNT_CRASH_AT"
LOCK = "node.lock"
TICK_S = 1.0
M_ARENA_MAX = -8  # malloc.h
TRUST_S = 3_600.0


def run(state: Path, *, development: bool) -> None:
    """Runs the node in `state`. Raises HostAltered and other SnapcountErrors when it cannot start."""
    _share_arenas()
    measured = measure_host()
    if not development:
        require_sealed(measured)
    lock = _take_lock(state)
    try:
        node = Node.open(state, measured, reach=_crash_point(os.environ.get(CRASH_AT, "")))
        log_line(
            "info",
            f"{node.name}: host {measured.digest[:19]}, {measured.files} files{' sealed' if measured.sealed else ', development tree'}",
        )
        _run(_serve(node, state, Watchdog()), fast=bool(node.config.mesh.role))
    finally:
        os.close(lock)


def _run(serving: Coroutine[Any, Any, None], *, fast: bool) -> None:
    if not fast:  # a node in no mesh has little to do, and on a small machine the memory counts
        asyncio.run(serving)
        return
    import uvloop

    uvloop.run(serving)


async def _serve(node: Node, state: Path, watchdog: Watchdog) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    line = node.supply_line()
    session = await line.start()
    mesh = MeshLink(node, state)
    recorded = recording(node, state, mesh)
    await mesh.start()
    node.spread_policy = mesh.spread
    control = ControlServer(node, state, mesh, recorded)
    await control.start()
    link = loop.create_task(node.client.run(session, line)) if node.client else None
    trusting = loop.create_task(_refresh_trust(node)) if node.trust else None
    ticking = loop.create_task(_tick(node, stop, watchdog))
    _settle()
    watchdog.ready(f"{node.name}: ready")
    log_line("info", f"{node.name}: ready, {len(node.skills())} skill(s) active")
    waiting = loop.create_task(stop.wait())
    try:
        await asyncio.wait([task for task in (waiting, link) if task], return_when=asyncio.FIRST_COMPLETED)
        if link and link.done():
            link.result()
    finally:
        log_line("info", f"{node.name}: stopping")
        watchdog.stopping()
        stop.set()  # a look that has begun is finished
        for task in (waiting, link, trusting):
            if task:
                task.cancel()
        node.interrupt()
        await asyncio.wait([task for task in (waiting, link, trusting, ticking) if task])
        await line.stop()
        await control.stop()
        await mesh.stop()
        if recorded is not None:
            await asyncio.to_thread(recorded.stop)
        await node.drain()
        node.close()


def _share_arenas() -> None:
    """A heap for each thread would cost a small machine megabytes; nothing here waits for malloc."""
    limit = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, others do without
    if limit is not None:
        limit(M_ARENA_MAX, 1)


def _settle() -> None:
    """Gives back the memory that only starting took: on a small machine it counts."""
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked at again
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others do without
    if trim is not None:
        trim(0)


async def _refresh_trust(node: Node) -> None:
    """Approvals expire; a node that asks each hour is not surprised when it is told to install something."""
    while True:
        await node.refresh_trust()
        await asyncio.sleep(TRUST_S)


async def _tick(node: Node, stop: asyncio.Event, watchdog: Watchdog) -> None:
    while not stop.is_set():
        try:
            await node.tick()
            watchdog.beat()
        except Exception as error:  # a defect costs this look, not the node
            log_line("error", f"{node.name}: {error!r}")
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await stop.wait()


def _take_lock(state: Path) -> int:
    import fcntl

    try:
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HostFault(f"{state}: a node runs here already") from error
    except OSError as error:
        raise HostFault(f"{state}: {error.strerror}; is this a node's state directory? `snapcount node init` makes one") from error
    return descriptor


def _crash_point(wanted: str) -> Reach:
    """Dies without a word at one named point of an install, for the tests and the demo that show what a power cut does."""
    if wanted and wanted not in CRASH_POINTS:
        raise HostFault(f"{CRASH_AT}: expected one of {', '.join(CRASH_POINTS)}, found {wanted!r}")

    def reach(point: str) -> None:
        if point == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach
