"""Where the fuel of a skill's calls goes, by function.

A call is deterministic, so the same call with its fuel cut at k units stops at the unit k, and the backtrace says which function used it. A profile is many
such cuts, spread evenly over all the fuel of the calls (one drawn from each equal stretch, from a seed). Each re-run meets the same state: a host made anew,
with a clock that stands still and the same random bytes. What is run is the module with a look at the fuel at each end of a function (sdk/checkpoints.py),
which changes neither what it answers nor the fuel it uses.

A component stays as it is: its functions are mostly those of the interpreter that it brings along, and code without a loop counts for what comes after it.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from host.core import wasm
from host.core.errors import FuelExhausted, HostFault, SnapcountError
from host.core.limits import DEFAULT
from host.sandbox.cache import CompiledCache
from host.sandbox.engine import default_engine
from host.sandbox.faults import CallFault
from host.sandbox.plain import PlainInstance
from host.sandbox.skill import SkillInstance
from sdk.checkpoints import with_checkpoints
from sdk.local import LocalSkill, user_cache
from sdk.scripts import Script, Step
from sdk.symbols import readable
from sdk.testbed import SeededRandom, StillClock

SAMPLES = 1_000
SECONDS_MAX = 30.0
"""A profile takes no longer than about this: where the calls are long, it is made of fewer samples."""
SAMPLES_MIN = 20
HOST = "host: "
DEEPER = "…"
FRAMES_MAX = 20  # of a backtrace, as wasmtime keeps them

Stack = tuple[str, ...]
"""Names of functions, the outermost first."""


@dataclass(frozen=True)
class Function:
    """One function, or one import of the host: fuel that was used in itself, and in it and all that it called."""

    name: str
    self_fuel: int
    total_fuel: int


@dataclass(frozen=True)
class Profile:
    """`fuel` is that of all calls; each stack stands for its part of it."""

    fuel: int
    calls: int
    samples: int
    stacks: dict[Stack, int]

    @property
    def functions(self) -> list[Function]:
        """By their own fuel, the greatest first."""
        own: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for stack, fuel in self.stacks.items():
            own[stack[-1]] += fuel
            total.update(dict.fromkeys(stack, fuel))
        del total[DEEPER]
        return sorted(
            (Function(name, own[name], total[name]) for name in total), key=lambda row: (-row.self_fuel, -row.total_fuel, row.name)
        )

    @property
    def deeper(self) -> int:
        """Fuel that was used deeper than a backtrace reaches: what called those functions is not known."""
        return sum(fuel for stack, fuel in self.stacks.items() if stack[0] == DEEPER)

    @property
    def error(self) -> float:
        """One standard deviation of a share of one half, the least certain: 0.01 is one percent of all fuel. Lower than this, as samples are spread evenly."""
        return 0.5 / math.sqrt(self.samples)

    def folded(self) -> str:
        """One line for each stack, `outer;inner fuel`, as tools for flame graphs read it."""
        return "".join(f"{';'.join(part.replace(';', ',') for part in stack)} {fuel}\n" for stack, fuel in sorted(self.stacks.items()))


def profile(data: bytes, what: str, scripts: Iterable[Script], samples: int = SAMPLES, step: Step = lambda share: None) -> Profile:
    """Runs the scripts `samples` times with their fuel cut. `step` is told the share that is done. Raises what loading the module raises."""
    bench = _Bench(data, what)
    played = [(one, bench.whole(one)) for one in scripts]
    stretches = [(one, call, fuel) for one, whole in played for call, fuel in whole.measured if fuel]
    fuel = sum(fuel for *_, fuel in stretches)
    if not fuel:
        return Profile(0, len(stretches), 0, {})
    seconds = sum(whole.seconds * sum(used for _, used in whole.measured) for _, whole in played) / fuel
    samples = max(min(samples, fuel, int(SECONDS_MAX / max(seconds, 1e-6))), min(samples, fuel, SAMPLES_MIN))
    found: Counter[Stack] = Counter()
    drawn = random.Random(samples)
    for number in range(samples):
        at = min(int((number + drawn.random()) * fuel / samples), fuel - 1)
        found[bench.stack(*_stretch(stretches, at))] += 1
        step((number + 1) / samples)
    return Profile(fuel, len(stretches), samples, {stack: round(count * fuel / samples) for stack, count in found.items()})


def fuel_of(data: bytes, what: str, scripts: Iterable[Script]) -> int:
    """The fuel that all measured calls of the scripts use."""
    bench = _Bench(data, what)
    return sum(fuel for one in scripts for _, fuel in bench.whole(one).measured)


def _stretch(stretches: list[tuple[Script, int, int]], at: int) -> tuple[Script, int, int]:
    for one, call, fuel in stretches:
        if at < fuel:
            return one, call, at + 1
        at -= fuel
    raise AssertionError("the position is below the sum")


@dataclass
class _Play:
    """One run of a script: which wasm call has its fuel cut, and what was seen. Calls are counted over the whole script."""

    target: int = -1
    cut: int = 0
    fuels: list[int] = field(default_factory=list)
    serving: tuple[str, int] = ("", 0)
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class _Whole:
    """What a run that was not cut used: the fuel of each measured wasm call by its number, and the time of all."""

    measured: list[tuple[int, int]]
    seconds: float


class _Bench:
    """Runs scripts on new hosts, again and again."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what = data, what
        self._looking = data if wasm.is_component(data) else with_checkpoints(data, what)
        self._cache: CompiledCache = user_cache()
        self._sites: dict[tuple[str, int, int], Stack] = {}

    def whole(self, one: Script) -> _Whole:
        """Runs it to its end, as it is and with its looks. Raises HostFault should the two differ."""
        looking = self._play(self._looking, one, _Play())
        plain = looking if self._looking is self._data else self._play(self._data, one, _Play())
        if plain.fuels != looking.fuels:
            raise HostFault(
                f"{self._what}: {one.name}: with its looks at the fuel it uses {looking.fuels}, not {plain.fuels}; this is a defect"
            )
        return _Whole(list(enumerate(looking.fuels))[len(one.before) :], time.perf_counter() - looking.began)

    def stack(self, one: Script, call: int, unit: int) -> Stack:
        """Which function of the script's wasm call uses this unit of its fuel, counted from 1."""
        play = _Play(call, unit)
        ended = self._ended(one, play)
        if ended is None:
            return (DEEPER,)
        if ended.trap is not None:
            return _named(ended.trap.frames)
        name, left = play.serving
        if not name:
            return (f"{HOST}a call",)  # a component asks by another way
        return (*self._site(one, call, unit - left - 1), HOST + name)

    def _site(self, one: Script, call: int, unit: int) -> Stack:
        """Who asked the host, having used so much: the look before each call stops there."""
        key = (one.name, call, unit)
        if key not in self._sites:
            ended = self._ended(one, _Play(call, max(unit, 1)))
            self._sites[key] = _named(ended.trap.frames) if ended is not None and ended.trap is not None else ()
        return self._sites[key]

    def _ended(self, one: Script, play: _Play) -> CallFault | None:
        try:
            self._play(self._looking, one, play)
        except FuelExhausted as error:
            return error.__cause__ if isinstance(error.__cause__, CallFault) else None
        return None

    def _play(self, data: bytes, one: Script, play: _Play) -> _Play:
        """Makes the calls of a script on a new host. Raises FuelExhausted where the call that was cut ends."""
        skill = LocalSkill(data, self._what, clock=StillClock(), random=SeededRandom(), force_plain=True, cache=self._cache)
        made: list[SkillInstance] = []

        def instance() -> SkillInstance:
            if skill.manifest.instance == "fresh" or not made or made[-1].faulted:
                made.append(_watched(skill, play))
            return made[-1]

        try:
            one.play(instance, skill.loaded.name)
        except SnapcountError as error:
            # However the call ended, its fuel was used; only one that was cut is looked into.
            if play.target >= 0 and isinstance(error, FuelExhausted) and len(play.fuels) == play.target + 1:
                raise
        finally:
            for one_made in made:
                one_made.close()
        return play


def _watched(skill: LocalSkill, play: _Play) -> SkillInstance:
    with_raw = skill.loaded.instance()
    return SkillInstance(skill.loaded, _Watched(with_raw._raw, play))


class _Watched:
    """An instance whose calls are counted, one of them with its fuel cut. The interface is that of PlainInstance, as far as a SkillInstance needs it."""

    def __init__(self, raw: Any, play: _Play) -> None:
        self._raw, self._play = raw, play
        self._ticks = default_engine().ticks(DEFAULT.deadline_ms_max)  # a slow machine changes nothing
        if isinstance(raw, PlainInstance):
            self._serve, raw.serve = raw.serve, self.serve  # type: ignore[method-assign]  # who asks the host is told nowhere else

    def call(self, hook: int, request: bytes, fuel: int, _ticks: int) -> Any:
        play = self._play
        given = play.cut if len(play.fuels) == play.target else fuel
        try:
            return self._raw.call(hook, request, given, self._ticks)
        finally:
            play.fuels.append(self._raw.fuel_used)

    def serve(self, name: str, args: tuple[int, ...]) -> Any:
        """What the host is asked for, and the fuel that was left then."""
        self._play.serving = (name, self._raw._open().get_fuel())
        return self._serve(name, args)

    def memory_bytes(self) -> int:
        return int(self._raw.memory_bytes())

    def close(self) -> None:
        self._raw.close()


def _named(frames: list[Any]) -> Stack:
    """Frames of a trap, innermost first, as a stack."""
    found = [readable(frame.func_name) if frame.func_name else f"function {frame.func_index}" for frame in reversed(frames)]
    return (DEEPER, *found) if len(found) >= FRAMES_MAX else tuple(found)
