"""Who can take a version and who cannot, before the first byte moves; and which messages a mixed fleet speaks."""

from pathlib import Path
from typing import Any

import pytest

from host.core import manifest as manifests
from host.core.manifest import Manifest, MessageRange
from registry import compat
from registry.compat import check
from registry.inventory import Known
from registry.negotiation import Agreed, negotiate
from registry.rollout_document import Release, Selection
from sdk import project

NEW, OLD, OLDER = ("sha256:" + digit * 64 for digit in "123")


def manifest(version: str = "2.0.0", **fields: Any) -> Manifest:
    return Manifest(name="greeter", version=version, hooks=("bid",), **fields)


def node(name: str = "node-1", version: str = "1.0.0", digest: str = OLD, **fields: Any) -> Known:
    defaults = {"generation": 1, "sector": "north", "host_version": "0.2.0", "capabilities": ("log", "motion"), "features": ("deltas",)}
    return Known(name, skills={"greeter": (version, digest)} if version else {}, **(defaults | fields))


def speaks(**ranges: tuple[int, int]) -> tuple[MessageRange, ...]:
    return tuple(MessageRange(name=name, min=low, max=high) for name, (low, high) in ranges.items())


def report(new: Manifest, *nodes: Known, held: dict[str, Manifest] | None = None, **rest: Any) -> compat.Report:
    return check(new, NEW, rest.pop("selection", Selection()), nodes, ({OLD: manifest("1.0.0")} if held is None else held).get, **rest)


@pytest.mark.parametrize(("needs", "has", "code", "says"), [
    ({"generations": (2, 3)}, {}, "generation", "generation 1: the bundle is for 2, 3"),
    ({"abi": 2}, {}, "abi", "needs ABI 2, the host has 1"),
    ({"host_min": "0.3.0"}, {}, "host", "0.3.0 or newer is needed"),
    ({"host_min": "0.3.0"}, {"host_version": ""}, "host", "of unknown version"),
    ({"host_min": "0.3.0"}, {"host_version": "\x1b[31mnightly"}, "host", "\\x1b"),
    ({"capabilities": ("motion", "spindle", "log")}, {}, "capability", "does not allow spindle"),
    ({"features": ("deltas", "relay")}, {}, "feature", "the feature relay"),
    ({}, {"version": "2.1.0"}, "newer", "runs 2.1.0, which is newer than 2.0.0"),
    ({"version": "4.0.0"}, {}, "too-far-behind", "runs 1.0.0, more than 2 major versions behind 4.0.0: bring it to 3.x first"),
    ({}, {"digest": OLDER}, "no-way-back", "names no previous version"),
])  # fmt: skip
def test_a_node_that_lacks_something_is_excluded_and_the_report_says_why(
    needs: dict[str, Any], has: dict[str, Any], code: str, says: str
) -> None:
    found = report(
        manifest(**needs),
        node(**has),
        node(
            "fits",
            generation=2,
            host_version="0.3.0",
            abi=(1, 2),
            capabilities=("motion", "spindle", "log"),
            features=("deltas", "relay"),
            version="",
        ),
    )
    assert [(excluded.node, excluded.code) for excluded in found.excluded] == [("node-1", code)]
    assert says in found.excluded[0].reason and found.excluded[0].reason.isprintable()
    assert found.eligible == ("fits",)


def test_a_node_that_has_all_it_needs_is_eligible() -> None:
    new = manifest(generations=(1,), host_min="0.2.0", capabilities=("motion",), features=("deltas",))
    assert report(new, node()).eligible == ("node-1",)
    assert report(new, node(digest=OLDER), previous=Release(version="1.0.0", digest=OLD, size=9)).eligible == ("node-1",)
    assert report(new, node(version="")).eligible == ("node-1",)
    assert report(new, node(version="2.0.0", digest=NEW)).eligible == ("node-1",)


def test_nodes_up_to_two_majors_behind_are_taken_along() -> None:
    versions = {"4.0.0": True, "4.9.9": True, "3.2.1": True, "2.0.0": True, "1.9.9": False, "5.0.0": True, "5.0.1": False}
    for version, fits in versions.items():
        assert bool(report(manifest("5.0.0") if version[0] == "5" else manifest("4.9.9"), node(version=version)).eligible) is fits


def test_who_is_not_selected_is_neither_eligible_nor_excluded() -> None:
    found = report(manifest(generations=(1,)), node(), node("other", generation=2), selection=Selection(generations=(1,)))
    assert (found.fleet, found.selected, found.eligible, found.excluded) == (2, 1, ("node-1",), ())


def test_with_nobody_who_can_take_it_the_roll_out_is_blocked() -> None:
    assert report(manifest(generations=(9,)), node()).blocked == ("no node that is selected can take it",)


# Messages.


@pytest.mark.parametrize(("new", "active", "agreed"), [
    ({"job": (2, 4)}, [{"job": (1, 3)}], Agreed("job", 3)),
    ({"job": (1, 4)}, [{"job": (1, 3)}, {"job": (1, 2)}], Agreed("job", 2)),
    ({"job": (3, 4)}, [{"job": (1, 2)}], Agreed("job", 0, without=("1.0.0",))),
    ({"job": (2, 4)}, [{"job": (1, 2)}, {"job": (3, 3)}], Agreed("job", 0, without=("1.0.0",))),
    ({}, [{"job": (1, 2)}], Agreed("job", 0, without=("1.0.0",))),
    ({"job": (1, 1)}, [{}], Agreed("job", 0, only_new=True)),
    ({"job": (1, 2)}, [], Agreed("job", 2)),
])  # fmt: skip
def test_the_highest_version_that_all_know_is_spoken(
    new: dict[str, tuple[int, int]], active: list[dict[str, tuple[int, int]]], agreed: Agreed
) -> None:
    beside = [manifest(f"1.{minor}.0", messages=speaks(**ranges)) for minor, ranges in enumerate(active)]
    assert negotiate(manifest(messages=speaks(**new)), beside) == (agreed,)


def test_versions_that_declare_no_messages_are_not_negotiated_with() -> None:
    assert negotiate(manifest(), [manifest("1.0.0", messages=speaks(job=(1, 1)))]) == ()
    assert negotiate(manifest(messages=speaks(job=(3, 3))), [manifest("1.0.0")]) == (Agreed("job", 3),)


def test_a_version_that_stays_active_elsewhere_and_has_no_message_in_common_blocks_the_roll_out() -> None:
    held = {OLD: manifest("1.0.0", messages=speaks(job=(1, 1)))}
    new = manifest(messages=speaks(job=(2, 2)))
    found = report(new, node(), node("elsewhere", sector="south", version=""), held=held, selection=Selection(sectors=("south",)))
    assert found.blocked == ("message job: 2.0.0 has no version in common with 1.0.0, which stays active beside it",)
    assert report(manifest("4.0.0", messages=speaks(job=(2, 2))), node(), node("fresh", version=""), held=held).blocked == (), (
        "more than two majors behind is outside the promise"
    )


def test_the_report_groups_counts_and_can_be_read() -> None:
    crowd = [node(f"old-{i}", generation=4) for i in range(12)] + [node(f"shy-{i}", capabilities=()) for i in range(3)] + [node("good")]
    found = report(manifest(generations=(1, 2), capabilities=("motion",), messages=speaks(job=(1, 2))), *crowd)
    lines = compat.lines(found)
    assert lines[0] == "greeter 2.0.0: 1 of 16 selected nodes can take it (16 in the fleet)"
    assert (
        lines[1]
        == "excluded: 12 node(s) of generation 4: generation 4: the bundle is for 1, 2 (old-0, old-1, old-10, old-11, old-2 and 7 more)"
    )
    assert lines[2] == "excluded: 3 node(s) of generation 1: its owner does not allow motion (shy-0, shy-1, shy-2)"
    assert "message job: all speak version 2" in lines
    shown = found.as_dict()
    assert (shown["eligible"], shown["excluded"], shown["possible"]) == (1, 15, True)
    assert [group["nodes"] for group in shown["groups"]] == [12, 3]  # type: ignore[attr-defined]


def test_an_active_version_that_the_registry_does_not_hold_is_noted() -> None:
    found = report(manifest(messages=speaks(job=(1, 1))), node(), held={}, previous=Release(version="1.0.0", digest=OLD, size=9))
    assert found.notes == ("1 node(s) run 1.0.0, whose manifest this registry does not hold: nothing was negotiated with it",)


def test_a_skill_says_in_its_skill_toml_what_it_needs_of_hosts_and_what_it_speaks(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text("")
    (tmp_path / "skill.toml").write_text("""
[skill]
name = "greeter"
version = "2.0.0"
hooks = ["handle"]
host_min = "0.1.0"
features = ["probation"]
messages = [{ name = "cell.start", min = 1, max = 2 }]
[build]
lang = "c"
source = "main.c"
""")
    described = manifests.decode(project.load(tmp_path).manifest.encode(), "greeter")
    assert (described.host_min, described.features) == ("0.1.0", ("probation",))
    assert described.messages == (MessageRange(name="cell.start", min=1, max=2),)
