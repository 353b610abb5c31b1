"""The bytes of a table's snapshot: the readable reference of cython_core/arrival_snapshot.pxi. All is little-endian, nothing is padded.

- Header, 20 bytes: `SCAT`; the format, 1 (uint32); the table's size (uint32); its quantile (double).
- Each agent in turn, 26 bytes: what `update` set, in its order (single, uint16, single, single, uint8, double, uint8); where its ring
  stands (uint8); whether an estimate is assigned (uint8, 0 or 1). The heartbeat of an agent that never had one is minus infinity.
- If one is assigned, 16 bytes: the estimate (four singles).
- For each observation in the ring, from slot 0 up, 14 bytes: delay, processing and weight (singles), queue (uint16).
- Last, 4 bytes: the CRC-32 (of zlib, as in ISO 3309) of all bytes before it (uint32).

Where a ring stands is how many observations it holds, and when it is full, 32 + the slot that is next: 0 to 63. A learned estimate is not
written: it follows from the ring and the quantile exactly, so the two cannot contradict each other.
"""

import math
import struct
import zlib
from collections.abc import Sequence

from cython_core.arrival_agent_reference import OBSERVATIONS, Agent, Estimate, Observation, within

MAGIC, VERSION = b"SCAT", 1

_HEADER, _ROW, _ESTIMATE = struct.Struct("<4sIId"), struct.Struct("<fHffBdBBB"), struct.Struct("<ffff")
_OBSERVATION, _CHECKSUM = struct.Struct("<fffH"), struct.Struct("<I")


def write(agents: Sequence[Agent], quantile: float) -> bytes:
    body = _HEADER.pack(MAGIC, VERSION, len(agents), quantile) + b"".join(map(_row, agents))
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _row(agent: Agent) -> bytes:
    stands = len(agent.ring) if len(agent.ring) < OBSERVATIONS else OBSERVATIONS + agent.next_slot
    said = (agent.rtt_ms, agent.queue, agent.drift, agent.reliability, agent.agent_class, agent.heartbeat_ms, agent.state)
    row = _ROW.pack(*said, stands, agent.assigned is not None)
    if agent.assigned is not None:
        given = agent.assigned
        row += _ESTIMATE.pack(given.one_way_ms, given.work_ms, given.per_weight, given.per_item)
    return row + b"".join(_OBSERVATION.pack(seen.delay_ms, seen.processing_ms, seen.weight, seen.queue) for seen in agent.ring)


def read(data: bytes, size: int, quantile: float) -> list[Agent]:
    """The agents of the snapshot of a table of `size` agents and `quantile`; ValueError if it is not one, whole and in range."""
    _check(data, size, quantile)
    body, at, agents = data[: -_CHECKSUM.size], _HEADER.size, []
    for number in range(size):
        try:
            agent, at = _agent(body, at, quantile)
        except (ValueError, struct.error) as error:
            message = f"the row of agent {number} in the snapshot is cut short or has a value out of range; nothing was restored"
            raise ValueError(message) from error
        agents.append(agent)
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes follow the last agent of the snapshot; nothing was restored")
    return agents


def _check(data: bytes, size: int, quantile: float) -> None:
    least = _HEADER.size + _CHECKSUM.size
    if len(data) < least:
        raise ValueError(f"a snapshot has at least {least} bytes, not {len(data)}; nothing was restored")
    magic, version, size_there, quantile_there = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError(f"a snapshot begins with {MAGIC!r}, not {magic!r}; nothing was restored")
    # Before the checksum, because another format may have another one, or have it elsewhere.
    if version != VERSION:
        raise ValueError(f"the snapshot has format {version}, and only format {VERSION} is read; nothing was restored")
    checksum, (expected,) = zlib.crc32(data[: -_CHECKSUM.size]), _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)
    if checksum != expected:
        raise ValueError(f"the snapshot is damaged or cut short: its checksum is {checksum:08x}, not {expected:08x}; nothing was restored")
    if size_there != size:
        raise ValueError(f"the snapshot is of {size_there} agents, the table has {size}; nothing was restored")
    if quantile_there != quantile:
        raise ValueError(f"the snapshot is of quantile {quantile_there}, the table has {quantile}; nothing was restored")


def _agent(body: bytes, at: int, quantile: float) -> tuple[Agent, int]:
    """The agent whose row begins at byte `at`, and where the next row begins."""
    rtt_ms, queue, drift, reliability, agent_class, heartbeat_ms, state, stands, assigned = _ROW.unpack_from(body, at)
    at += _ROW.size
    agent = Agent()
    never = heartbeat_ms == -math.inf
    agent.update(rtt_ms, queue, drift, reliability, agent_class, 0.0 if never else heartbeat_ms, state)
    agent.heartbeat_ms = heartbeat_ms
    within(stands, 0, 2 * OBSERVATIONS - 1, "where the ring stands")
    within(assigned, 0, 1, "assigned")
    if assigned:
        agent.assigned = Estimate.checked(*_ESTIMATE.unpack_from(body, at))
        at += _ESTIMATE.size
    for _ in range(min(stands, OBSERVATIONS)):
        agent.ring.append(Observation.checked(*_OBSERVATION.unpack_from(body, at)))
        at += _OBSERVATION.size
    agent.next_slot = stands % OBSERVATIONS
    agent.learn(quantile)
    return agent, at
