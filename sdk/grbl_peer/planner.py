"""The peer's motion: a short queue of straight moves, carried out at their feed on a clock that may run faster than the real one."""

import math
from collections import deque
from dataclasses import dataclass

from sdk.grbl_peer.parser import Point

BLOCKS = 15
"""How many moves the controller looks ahead."""


@dataclass(frozen=True)
class Move:
    start_mm: Point
    end_mm: Point
    seconds: float


class Planner:
    """Moves one after the other. `speed` is how many times faster than its feed each is. Nothing moves until `start`."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.position_mm: Point = (0.0, 0.0, 0.0)
        self.planned_mm: Point = self.position_mm
        self.moves: deque[Move] = deque()
        self.running = False
        self._done_s = 0.0
        self._then_s = 0.0

    @property
    def full(self) -> bool:
        return len(self.moves) >= BLOCKS

    def add(self, target_mm: Point, feed_mm_min: float) -> None:
        seconds = math.dist(self.planned_mm, target_mm) / (feed_mm_min / 60) / self._speed
        if seconds > 0:
            self.moves.append(Move(self.planned_mm, target_mm, seconds))
        self.planned_mm = target_mm

    def start(self, now_s: float) -> None:
        if not self.running:
            self.running, self._then_s = True, now_s

    def hold(self, now_s: float) -> None:
        """Stops where it is, with the rest of the moves kept."""
        self.advance(now_s)
        self.running = False

    def flush(self, now_s: float) -> None:
        """Stops where it is, and forgets the rest."""
        self.hold(now_s)
        self.moves.clear()
        self._done_s = 0.0
        self.planned_mm = self.position_mm

    def place(self, at_mm: Point) -> None:
        """Says where the machine is."""
        self.position_mm = self.planned_mm = at_mm

    def advance(self, now_s: float) -> None:
        if not self.running:
            return
        self._done_s += now_s - self._then_s
        self._then_s = now_s
        while self.moves and self._done_s >= self.moves[0].seconds:
            move = self.moves.popleft()
            self._done_s -= move.seconds
            self.position_mm = move.end_mm
        if not self.moves:
            self.running, self._done_s = False, 0.0
            return
        move = self.moves[0]
        part = self._done_s / move.seconds
        x, y, z = (a + (b - a) * part for a, b in zip(move.start_mm, move.end_mm, strict=True))
        self.position_mm = (x, y, z)

    def next_s(self) -> float:
        """In how many seconds the move that runs ends."""
        return self.moves[0].seconds - self._done_s if self.running and self.moves else math.inf
