"""part-inspector: both lineages beside the same formulas in NumPy, which shares neither's way of computing them, and what vectors cannot say."""

import asyncio
import hashlib
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from nacl.signing import SigningKey

from host.core import cbor
from host.core.bundle import with_signature
from host.core.clock import SystemClock
from host.installed import measure_host
from host.node import Node, request_of
from host.plugins.contract import InspectPartReply, InspectPartRequest
from sdk import project, samples, vectors
from sdk.build import build
from sdk.compare import Lineage, compare
from sdk.local import LocalSkill, read_bundle
from skills import FOLDER

NAME = "part-inspector"
SOURCES = Path(__file__).resolve().parents[1] / "skills"
LINEAGES = (NAME, f"{NAME}-b")
SAME_MM = 5e-7
A2 = {2: 1.880, 3: 1.023, 4: 0.729, 5: 0.577, 6: 0.483, 7: 0.419, 8: 0.373, 9: 0.337, 10: 0.308}
D2 = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847, 9: 2.970, 10: 3.078}
D3 = {2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0.076, 8: 0.136, 9: 0.184, 10: 0.223}
D4 = {2: 3.267, 3: 2.574, 4: 2.282, 5: 2.114, 6: 2.004, 7: 1.924, 8: 1.864, 9: 1.816, 10: 1.777}
WORST = ("accept", "rework", "reject")

Request = dict[str, Any]


def bundle(lineage: str) -> bytes:
    return read_bundle(FOLDER / lineage / f"{NAME}.wasm")


@pytest.fixture(scope="module", params=LINEAGES)
def inspector(request: pytest.FixtureRequest) -> LocalSkill:
    return LocalSkill(bundle(request.param), request.param)


def inspected(skill: LocalSkill, request: Request) -> dict[str, Any]:
    reply = skill.version.call("inspect_part", msgspec.convert(request, InspectPartRequest))
    return msgspec.to_builtins(reply)  # type: ignore[no-any-return]  # a struct becomes a dict


# ---- The same formulas once more ---------------------------------------------------------------


def nelson(means: np.ndarray, center: float, sigma: float) -> set[tuple[str, int, int]]:
    """The rules by their wording, over all windows at once."""
    z, step = means - center, np.diff(means)
    side, up = np.where(np.abs(z) > SAME_MM, np.sign(z), 0), np.where(np.abs(step) > SAME_MM, np.sign(step), 0)
    found: set[tuple[str, int, int]] = set()

    def beyond(sigmas: int) -> np.ndarray:
        return np.abs(z) > sigmas * sigma + SAME_MM

    def tell(rule: int, length: int, holds: Callable[[slice], bool]) -> None:
        found.update(("mean", end, rule) for end in range(length, len(z) + 1) if holds(slice(end - length, end)))

    tell(1, 1, lambda w: bool(beyond(3)[w].all()))
    tell(2, 9, lambda w: bool(abs(side[w].sum()) == 9))
    tell(3, 6, lambda w: bool(abs(up[w.start : w.stop - 1].sum()) == 5))
    tell(4, 14, lambda w: bool((up[w.start : w.stop - 2] * up[w.start + 1 : w.stop - 1] == -1).all()))
    tell(7, 15, lambda w: not beyond(1)[w].any())
    tell(8, 8, lambda w: bool(beyond(1)[w].all() and (side[w] > 0).any() and (side[w] < 0).any()))
    for rule, sigmas, points, least in ((5, 2, 3, 2), (6, 1, 5, 4)):
        for end in range(1, len(z) + 1):
            out = (beyond(sigmas) & (side == side[end - 1]))[max(0, end - points) : end]
            if out[-1] and out.sum() >= least:
                found.add(("mean", end, rule))
    return found


def observed(c: Request) -> dict[str, Any]:
    """Charts and capability of a characteristic; empty without a chart."""
    n, values = c["subgroup"], np.array(c["history_mm"] + c["measured_mm"])
    groups = values[: len(values) // n * n].reshape(-1, n)
    if len(groups) < (1 if "established" in c else 2):
        return {"points": len(groups)}
    means, ranges = groups.mean(axis=1), np.ptp(groups, axis=1)
    lines = c.get("established", {"center_mm": means.mean(), "range_mm": ranges.mean()})
    center, width = lines["center_mm"], lines["range_mm"]
    signals = nelson(means, center, A2[n] * width / 3)
    signals |= {("range", at + 1, 1) for at, r in enumerate(ranges) if r > D4[n] * width + SAME_MM or r < D3[n] * width - SAME_MM}
    first = len(c["history_mm"]) // n
    found: dict[str, Any] = {
        "points": len(groups), "lines": (center, width, center - A2[n] * width, center + A2[n] * width, D3[n] * width, D4[n] * width),
        "signals": sorted(signals, key=lambda one: (one[1], one[0], one[2])), "of_lot": sum(point > first for _, point, _ in signals),
        "shows_lot": len(groups) > first, "mean": means.mean(), "sigma": ranges.mean() / D2[n],
    }  # fmt: skip
    if ranges.mean() > SAME_MM:
        room = min((sign * (c["nominal_mm"] + c[key] - means.mean()) for key, sign in (("lower_mm", -1), ("upper_mm", 1)) if key in c))
        found |= {"cpk": room / (3 * found["sigma"]), "overall": groups.std(ddof=1), "values": groups.size}
        found["ppk"] = room / (3 * found["overall"])
        found["cpk_lower"] = found["cpk"] - 1.645 * np.sqrt(1 / (9 * groups.size) + found["cpk"] ** 2 / (2 * 0.9 * len(groups) * (n - 1)))
    return found


def expected(request: Request, c: Request) -> dict[str, Any]:
    """What a lineage should find of a characteristic."""
    guard, external = 1.65 * c["gauge_sigma_mm"], c["feature"] == "external"
    least = [c["nominal_mm"] + c["lower_mm"]] if "lower_mm" in c else []
    most = [c["nominal_mm"] + c["upper_mm"]] if "upper_mm" in c else []
    process, mates = observed(c), []
    for mate in c["mates"]:
        clearances = (mate["clearance_min_mm"], mate["clearance_max_mm"])

        def gap(small: float, large: float, mate: Request = mate) -> tuple[float, float]:
            return (
                (mate["lower_mm"] - large, mate["upper_mm"] - small) if external else (small - mate["upper_mm"], large - mate["lower_mm"])
            )

        mean = process.get("mean", c["nominal_mm"] + (c["lower_mm"] + c["upper_mm"]) / 2)
        sigma = process.get("sigma", (c["upper_mm"] - c["lower_mm"]) / 6)
        middle = (mate["mean_mm"] - mean) * (1 if external else -1)
        spread = 3 * np.hypot(sigma, mate["sigma_mm"])
        gaps = {
            "every": gap(c["nominal_mm"] + c["lower_mm"], c["nominal_mm"] + c["upper_mm"]), "most": (middle - spread, middle + spread),
            "measured": gap(min(c["measured_mm"]) - guard, max(c["measured_mm"]) + guard),
        }  # fmt: skip
        good = [word for word, (low, high) in gaps.items() if low >= clearances[0] - SAME_MM and high <= clearances[1] + SAME_MM]
        mates.append({"gaps": gaps, "fits": (good or ["none"])[0], "required": mate["required"]})
        if mate["required"]:
            most.append(mate["lower_mm"] - clearances[0] if external else mate["lower_mm"] + clearances[1])
            least.append(mate["upper_mm"] - clearances[1] if external else mate["upper_mm"] + clearances[0])
    low, high = max(least, default=-np.inf) + guard, min(most, default=np.inf) - guard
    sizes = np.array(c["measured_mm"])
    large, small = sizes > high + SAME_MM, sizes < low - SAME_MM
    excess, lack = (large, small) if external else (small, large)
    verdict = "reject" if lack.any() else "accept"
    if excess.any() and not lack.any():
        verdict = "rework" if c["rework"] and low <= high + SAME_MM else "reject"
    if request["parts"] > len(sizes):
        settled = "lines" in process and ("established" in c or process["points"] >= 25)
        capable = process.get("cpk", -np.inf) >= request["cpk_min"] - 1e-9
        fitting = all(mate["fits"] in ("every", "most") for mate in mates if mate["required"])
        if not (settled and process["shows_lot"] and process["of_lot"] == 0 and capable and fitting):
            verdict = "reject"
    return {"window": (low, high), "accepted": int((~large & ~small).sum()), "verdict": verdict, "mates": mates, "process": process}


def check(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    near: dict[str, Any] = {"rel": 1e-7, "abs": 1e-9}
    assert (found["verdict"], found["accepted"]) == (wanted["verdict"], wanted["accepted"])
    assert (found.get("window_lower_mm", -np.inf), found.get("window_upper_mm", np.inf)) == pytest.approx(wanted["window"], **near)
    process = wanted["process"]
    assert ("chart" in found, "capability" in found) == ("lines" in process, "cpk" in process)
    if "lines" in process:
        chart = found["chart"]
        keys = ("center_mm", "range_mm", "mean_lower_mm", "mean_upper_mm", "range_lower_mm", "range_upper_mm")
        assert tuple(chart[key] for key in keys) == pytest.approx(process["lines"], **near)
        assert (chart["points"], chart["signals_total"]) == (process["points"], len(process["signals"]))
        assert [(one["chart"], one["point"], one["rule"]) for one in chart["signals"]] == process["signals"][-64:]
    if "cpk" in process:
        keys = {
            "cpk": "cpk",
            "cpk_lower": "cpk_lower",
            "ppk": "ppk",
            "overall_sigma_mm": "overall",
            "sigma_mm": "sigma",
            "values": "values",
        }
        assert {key: found["capability"][key] for key in keys} == pytest.approx({key: process[mine] for key, mine in keys.items()}, **near)
    for mate, mine in zip(found["mates"], wanted["mates"], strict=True):
        assert mate["fits"] == mine["fits"]
        for word, said in (("every", "worst"), ("most", "statistical"), ("measured", "measured")):
            assert (mate[f"{said}_min_mm"], mate[f"{said}_max_mm"]) == pytest.approx(mine["gaps"][word], **near)


# ---- Requests as a shop would send them --------------------------------------------------------


def a_history(rng: random.Random, nominal: float, sigma: float) -> list[float]:
    """Sizes of a process that is calm, drifts, jumps, swings, or shows too little or too much spread between subgroups."""
    count, n = rng.choice((0, 3, 9, 30, 60, 140, 300)), rng.randint(2, 10)
    kind = rng.choice(("calm", "calm", "drift", "jump", "swing", "mixture", "narrow"))
    values = []
    for at in range(count):
        move = {
            "drift": 4 * at / count,
            "jump": 2.0 * (at > count / 2),
            "swing": 1.5 * (-1) ** (at // n),
            "mixture": rng.choice((-2, 2)) if at % n == 0 else 0,
        }
        values.append(nominal + sigma * ((0.2 if kind == "narrow" and at % n == 0 else 1) * rng.gauss(0, 1) + move.get(kind, 0)))
    return [round(value, 5) for value in values] if rng.random() < 0.5 else values


def a_mate(rng: random.Random, generation: int, nominal: float, tolerance: float, sign: int) -> Request:
    low = nominal + sign * tolerance * rng.choice((rng.uniform(0.3, 2), rng.uniform(-2, 0))) - tolerance * 0.3
    least = tolerance * rng.uniform(-0.2, 1)
    return {
        "clearance_max_mm": least + tolerance * rng.uniform(0.5, 4), "clearance_min_mm": least, "generation": generation, "lower_mm": low,
        "mean_mm": low + tolerance * 0.3, "required": rng.random() < 0.6, "sigma_mm": tolerance * rng.uniform(0.02, 0.2), "upper_mm": low + tolerance * 0.6,
    }  # fmt: skip


def a_request(rng: random.Random) -> Request:
    characteristics = []
    parts = rng.choice((1, 3, 5, 20))
    for number in range(rng.randint(1, 3)):
        nominal, tolerance, feature = rng.uniform(1, 200), 10 ** rng.uniform(-3, 0), rng.choice(("external", "internal"))
        sigma = tolerance / rng.choice((5, 8, 12, 20))
        sign = 1 if feature == "external" else -1
        c: Request = {
            "feature": feature, "gauge_sigma_mm": tolerance * rng.choice((0, 0.01, 0.05, 0.4)), "history_mm": a_history(rng, nominal, sigma), "mates": [],
            "measured_mm": [nominal + rng.gauss(0, sigma) for _ in range(rng.randint(1, parts))], "name": f"size {number}", "nominal_mm": nominal,
            "rework": rng.random() < 0.7, "subgroup": rng.randint(2, 10),
        }  # fmt: skip
        c |= rng.choice(
            ({"lower_mm": -tolerance / 2}, {"upper_mm": tolerance / 2}, *[{"lower_mm": -tolerance / 2, "upper_mm": tolerance / 2}] * 6)
        )
        if rng.random() < 0.5:
            c["established"] = {"center_mm": nominal, "range_mm": sigma * D2[c["subgroup"]] * rng.choice((0.7, 1, 1.3))}
        if "lower_mm" in c and "upper_mm" in c:
            c["mates"] = [a_mate(rng, generation, nominal, tolerance, sign) for generation in range(rng.randint(0, 3))]
        characteristics.append(c)
    return {
        "characteristics": characteristics,
        "cpk_min": rng.choice((0.0, 0.67, 1.0, 1.33)),
        "generation": 3,
        "lot": "l",
        "parts": rng.choice((parts, parts, 500)),
    }


@pytest.mark.slow
def test_both_lineages_find_what_the_formulas_give(inspector: LocalSkill) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(500):
        request = a_request(rng)
        found = inspected(inspector, request)
        wanted = [expected(request, c) for c in request["characteristics"]]
        for mine, its in zip(found["characteristics"], wanted, strict=True):
            check(mine, its)
            seen.update(f"{one['chart']} {one['rule']}" for one in mine.get("chart", {"signals": []})["signals"])
            seen.update([mine["verdict"], *(mate["fits"] for mate in mine["mates"]), *(mate["fit"] for mate in mine["mates"])])
        assert found["verdict"] == max((mine["verdict"] for mine in found["characteristics"]), key=WORST.index)
        assert all(any(reason.startswith(c["name"]) for reason in found["reasons"]) for c in request["characteristics"])
    print(dict(seen))
    words = {*WORST, "every", "most", "measured", "none", "clearance", "transition", "interference", "range 1"}
    assert words | {f"mean {rule}" for rule in range(1, 9)} <= set(seen)


# ---- Constants ---------------------------------------------------------------------------------


def ranges_of(n: int) -> tuple[float, float]:
    """Mean and standard deviation of the range of n standard normal values, by integration of its distribution."""
    step = 0.01
    x = np.arange(-8, 18, step)  # a range is below 10, and its smallest value below 8
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    phi = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2))) * step
    most, low = int(10 / step), int(16 / step)
    at_most = [np.sum(n * density[:low] * (phi[k : k + low] - phi[:low]) ** (n - 1)) * step for k in range(most)]
    w, above = np.arange(most) * step, 1 - np.array(at_most)
    mean = np.trapezoid(above, w)
    return float(mean), float(np.sqrt(np.trapezoid(2 * w * above, w) - mean * mean))


def test_the_constants_of_the_charts_are_those_of_the_ranges_distribution(inspector: LocalSkill) -> None:
    for n in range(2, 11):
        d2, d3 = ranges_of(n)
        c = {
            "established": {"center_mm": 0.0, "range_mm": 1.0}, "feature": "external", "gauge_sigma_mm": 0.0, "history_mm": [], "lower_mm": -1.0, "mates": [],
            "measured_mm": [0.0] * (n - 1) + [1.0], "name": "n", "nominal_mm": 0.0, "rework": False, "subgroup": n,
        }  # fmt: skip
        found = inspected(inspector, {"characteristics": [c], "cpk_min": 0.0, "generation": 1, "lot": "", "parts": n})["characteristics"][0]
        chart = found["chart"]
        said = (chart["mean_upper_mm"], 1 / found["capability"]["sigma_mm"], chart["range_lower_mm"], chart["range_upper_mm"])
        assert said == pytest.approx((3 / (d2 * n**0.5), d2, max(0.0, 1 - 3 * d3 / d2), 1 + 3 * d3 / d2), abs=1e-3), n


# ---- What holds of every request ---------------------------------------------------------------


@pytest.mark.slow
def test_a_coarser_gauge_never_accepts_a_part_more(inspector: LocalSkill) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(60):
        request = a_request(rng)
        before = inspected(inspector, request)
        for c in request["characteristics"]:
            c["gauge_sigma_mm"] += 0.01 * rng.random()
        after = inspected(inspector, request)
        for fine, coarse in zip(before["characteristics"], after["characteristics"], strict=True):
            assert coarse["accepted"] <= fine["accepted"]
            assert coarse.get("chart") == fine.get("chart")


def test_the_largest_request_stays_within_half_of_every_limit(inspector: LocalSkill) -> None:
    rng = random.Random(1)
    mates = [a_mate(rng, (1 << 64) - 1 - generation, 25.0, 0.02, 1) | {"required": True} for generation in range(8)]
    c = {
        "feature": "external", "gauge_sigma_mm": 0.0011, "history_mm": [25 + 0.01 * rng.random() * (-1) ** (at // 2) for at in range(1000)],
        "lower_mm": -0.01, "mates": mates, "measured_mm": [24.9 + 0.2 * rng.random() for _ in range(100)], "nominal_mm": 25.0, "rework": True, "subgroup": 2,
        "upper_mm": 0.01,
    }  # fmt: skip
    request = {
        "characteristics": [c | {"name": f"{number:02d}" + "é" * 62} for number in range(16)],
        "cpk_min": 1.33,
        "generation": 3,
        "lot": "l" * 64,
        "parts": 1_000,
    }
    sent = cbor.encode(msgspec.convert(request, InspectPartRequest))
    limits = inspector.manifest.limits
    with inspector.loaded.instance() as instance:
        reply = instance.call("inspect_part", sent)
        used = (instance.fuel_used, instance.memory_bytes(), len(reply))
    print(len(sent), used)
    decoded = cbor.decode_struct(reply, InspectPartReply, "reply", bytes_max=limits.reply_bytes)
    assert all(len(found.chart.signals) == 64 for found in decoded.characteristics)  # type: ignore[union-attr]  # each has a chart
    for amount, most in zip(used, (limits.fuel, limits.memory_bytes, limits.reply_bytes), strict=True):
        assert amount <= most / 2


def example() -> list[str]:
    """The request and the answer in the README."""
    return re.findall(r"```json\n(.*?)```", (SOURCES / NAME / "README.md").read_text(), re.DOTALL)


def test_the_example_of_the_readme_is_answered_as_it_says(inspector: LocalSkill) -> None:
    asked, answered = map(json.loads, example())
    assert vectors.differences(answered, inspected(inspector, asked), 1e-4) == []


@pytest.mark.slow
def test_a_node_that_has_the_skill_answers_the_request_of_the_readme(
    tmp_path: Path, make_state: Callable[..., Path], author: SigningKey
) -> None:
    data = with_signature(bundle(NAME), author, NAME)
    asked, answered = example()
    node = Node.open(make_state(tmp_path / "node", SystemClock()), measure_host(), clock=SystemClock(), log=lambda level, line: None)
    try:
        asyncio.run(node.install(data, f"sha256:{hashlib.sha256(data).hexdigest()}"))
        reply = asyncio.run(node.call("inspect_part", request_of("inspect_part", asked.encode())))
    finally:
        node.close()
    assert vectors.differences(json.loads(answered), msgspec.to_builtins(reply), 1e-4) == []


# ---- Lineages ----------------------------------------------------------------------------------


def agreement(examples: int) -> list[str]:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    shared = vectors.load(SOURCES / NAME / "vectors")
    report = compare(
        [Lineage(name, bundle(name)) for name in LINEAGES], shared, project.load(SOURCES / NAME).compare, examples=examples, seed=seed
    )
    assert report.requests == examples + len(shared)
    return [divergence.in_words for divergence in report.divergences]


@pytest.mark.slow
def test_the_two_lineages_agree_on_the_vectors_and_on_what_is_made_up() -> None:
    assert agreement(500) == []


@pytest.mark.slow
@pytest.mark.ci
def test_the_two_lineages_agree_on_twenty_thousand_requests() -> None:
    assert agreement(20_000) == []


def test_the_lineages_are_one_skill_by_different_letters_and_languages() -> None:
    projects = [project.load(SOURCES / name) for name in LINEAGES]
    assert {found.manifest.name for found in projects} == {NAME}
    assert [(found.manifest.lineage, found.lang) for found in projects] == [("a", "c"), ("b", "rust")]


@pytest.mark.slow
@pytest.mark.parametrize("force_plain", [False, True], ids=["direct", "plain"])
def test_lineage_b_passes_the_vectors_of_the_first_on_both_call_paths(force_plain: bool) -> None:
    for path, vector in vectors.load(SOURCES / NAME / "vectors"):
        assert not vectors.run(bundle(LINEAGES[1]), path, vector, force_plain=force_plain).problems, path.name


@pytest.mark.slow
@pytest.mark.ci
def test_lineage_b_is_what_its_sources_compile_to_anywhere(require: Callable[[str], None], tmp_path: Path) -> None:
    require("rust")
    copy = tmp_path / "somewhere-else"
    shutil.copytree(SOURCES / LINEAGES[1], copy, ignore=shutil.ignore_patterns("*.wasm"))
    assert build(project.load(copy)).read_bytes() == bundle(LINEAGES[1]), (
        f"run `snapcount skill build skills/{LINEAGES[1]}` and commit the result"
    )


def test_generated_requests_reach_what_the_skill_decides(inspector: LocalSkill) -> None:
    """`snapcount skill compare` and `test` change the vectors' requests: enough of them must be answered for it to mean something."""
    rng, seen = random.Random(3), Counter[str]()
    corpus = [
        samples.plain(vectors.requests(vector, path.name)[-1])
        for path, vector in vectors.load(SOURCES / NAME / "vectors")
        if vector.reply and vector.request
    ]
    for _ in range(150):
        made = samples.made_up(InspectPartRequest, corpus, rng)
        assert made is not None
        try:
            seen[inspected(inspector, made[1])["verdict"]] += 1
        except Exception as error:
            assert getattr(error, "skill_code", "") == "bad_inspection"
            seen["refused"] += 1
    print(dict(seen))
    assert all(seen[word] > 0 for word in (*WORST, "refused"))
