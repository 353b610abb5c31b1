"""A fleet of several hundred agents under virtual time: what it does when frames are lost, peers die or hang, clocks are wrong and links break."""

from dataclasses import replace
from typing import Any

import pytest

from host.core.errors import Busy
from host.mesh.arrival import BASE, LEARNED
from host.mesh.orchestrator import Request, Result
from sdk.mesh.virtual_fleet import VirtualFleet

HOUR_MS = 3_600_000.0
GO = Request(topic="lights.on")


def fleet_of(agents: int, seed: int = 1, **options: Any) -> VirtualFleet:
    fleet = VirtualFleet(agents, seed, **options)
    fleet.start()
    return fleet


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def submit(fleet: VirtualFleet, agent: int, **fields: Any) -> bytes:
    """An agent sends a message of its own; its id."""
    peer = fleet.agents[agent]
    assert peer.uplink is not None
    message = peer.author.message(
        peer.clock.now_ms(), **{"topic": "x.note", "verb": "observe", "routing": "direct", "ttl_ms": 5_000, **fields}
    )
    peer.uplink.submit(message, peer.identity.chain)
    return message.value.id


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def digest(seed: int) -> str:
        fleet = fleet_of(300, seed, loss=0.01, delays=True, clock_error_ms=1_000.0, dead=0.01)
        fleet.cascade(GO)
        return fleet.digest()

    first = digest(1)
    assert digest(1) == first
    assert digest(2) != first


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.1])
def test_a_lossy_network_still_brings_a_message_to_everybody_and_to_each_handler_once(loss: float) -> None:
    fleet = fleet_of(300, loss=loss)
    for _ in range(3):
        result = fleet.cascade(Request(topic="lights.on", in_ms=0.0))
        fleet.time.run_for(2_000.0)
        prepared = fleet.marks(result).prepared
        assert len(prepared) == 300
        assert set(prepared.values()) == {1}
        assert loss > 0.05 or result["outcome"] == "SUCCESS", result["reason"]
    assert fleet.network.lost > 0
    assert sum(agent.complaints.counts.get("duplicates", 0) for agent in fleet.agents) > 0, "nothing was sent twice"


def test_messages_arrive_at_a_cluster_in_the_order_in_which_they_were_sent() -> None:
    fleet = fleet_of(30)
    ids = [submit(fleet, 0, targets=(fleet.topology.agent_name(1),)) for _ in range(12)]
    fleet.time.run_for(1_000.0)
    assert [message_id for message_id in fleet.seen() if 1 in fleet.marks_of(message_id).prepared] == ids


@pytest.mark.slow
def test_a_lost_frame_does_not_change_the_order_within_a_cluster() -> None:
    fleet = fleet_of(30, loss=0.05)
    ids = []
    for _ in range(40):
        ids.append(fleet.cascade(Request(topic="lights.on", in_ms=0.0))["id"])
        fleet.time.run_for(1_000.0)
    assert [message_id.hex() for message_id in fleet.seen()] == ids
    assert all(set(fleet.marks_of(bytes.fromhex(message_id)).prepared.values()) == {1} for message_id in ids)


@pytest.mark.slow
def test_a_coordinator_that_hangs_is_named_and_the_rest_are_ready() -> None:
    fleet = fleet_of(900)
    fleet.silence(["sector-001"])
    result = fleet.cascade(Request(topic="lights.on", ready_min=0.6))
    assert result["missing"] == ["sector-001 (all 300)"]
    assert (result["expected"], result["ready"], result["transit"]) == (900, 600, 300)
    assert set(fleet.marks(result).ready_ms) == {*range(300), *range(600, 900)}


@pytest.mark.slow
def test_agents_that_have_died_are_named_and_the_cascade_succeeds() -> None:
    fleet = fleet_of(300, dead=0.02)
    result = fleet.cascade(GO)
    assert len(fleet.killed) == 6
    assert sorted(result["missing"]) == fleet.killed
    assert result["outcome"] == "SUCCESS"
    assert (result["ready"], result["skipped"]) == (294, 6)


@pytest.mark.slow
def test_a_sector_that_was_cut_off_comes_back_and_gets_what_is_still_alive() -> None:
    fleet = fleet_of(600)
    fleet.network.partition("sector-001", "orchestrator")
    results: list[Result] = []
    fleet.orchestrator.broadcast(Request(topic="lights.on", in_ms=30_000.0), results.append)
    fleet.orchestrator.broadcast(Request(topic="lights.off", in_ms=300.0), results.append)
    fleet.time.run_for(4_000.0)
    assert [result["topic"] for result in results] == ["lights.off"]
    assert results[0]["missing"] == ["sector-001 (all 300)"]
    fleet.network.heal("sector-001", "orchestrator")
    assert fleet.time.run_while(lambda: len(results) < 2, 60_000.0)
    assert (results[1]["ready"], results[1]["outcome"]) == (600, "SUCCESS")
    assert len(fleet.marks(results[0]).acted_ms) == 300, "what had expired was acted on"
    fleet.time.run_for(20_000.0)
    assert fleet.cascade(GO)["ready"] == 600


@pytest.mark.slow
def test_peers_whose_own_clocks_are_hours_apart_are_ready_within_the_window_and_act_at_the_same_moment() -> None:
    fleet = fleet_of(300, delays=True, clock_error_ms=HOUR_MS)
    fleet.warm_up(10)
    result = fleet.cascade(Request(topic="lights.on", in_ms=4_000.0, confirm=True))
    assert result["outcome"] == "SUCCESS"
    assert result["acted"] >= 0.98 * 300
    fleet.time.run_for(5_000.0)
    marks = fleet.marks(result)
    off_ms = [abs(acted_ms - result["at_ms"]) for acted_ms in marks.acted_ms.values()]
    assert len(off_ms) == 300
    assert quantile(off_ms, 0.9) <= 10.0
    assert quantile([abs(error_ms) for error_ms in fleet.errors_ms(result)], 0.9) <= 75.0


@pytest.mark.slow
def test_a_wave_for_which_too_few_coordinators_are_ready_reaches_no_agent() -> None:
    fleet = fleet_of(600)
    fleet.silence(["sector-000"])
    result = fleet.cascade(Request(topic="lights.on", strategy="wave", in_ms=2_000.0))
    fleet.time.run_for(5_000.0)
    assert (result["outcome"], result["verdict"]) == ("PARTIAL", "RETRY")
    assert "1 of 2 coordinators were ready" in result["reason"]
    assert not fleet.marks(result).prepared


@pytest.mark.slow
def test_a_wave_reaches_everybody() -> None:
    fleet = fleet_of(600)
    result = fleet.cascade(Request(topic="lights.on", strategy="wave"))
    assert (result["ready"], result["outcome"]) == (600, "SUCCESS")
    assert result["gate_ms"] > 0


def test_a_cascade_by_priority_stops_when_those_who_come_first_are_not_ready() -> None:
    fleet = fleet_of(90)
    fleet.silence(["cluster-00001"])
    request = Request(topic="lights.on", strategy="priority_first", first=("cluster-00001",))
    result = fleet.cascade(request)
    assert (result["stage"], result["outcome"]) == ("first", "PARTIAL")
    assert result["missing"] == ["cluster-00001 (all 30)"]
    fleet.time.run_for(5_000.0)
    assert not fleet.seen()


def test_a_cascade_by_priority_goes_on_to_the_rest_when_the_first_are_ready() -> None:
    fleet = fleet_of(90)
    result = fleet.cascade(Request(topic="lights.on", strategy="priority_first", first=("cluster-00001",)))
    assert (result["ready"], result["outcome"]) == (90, "SUCCESS")


def test_a_frozen_cluster_refuses_and_once_thawed_takes_part_again() -> None:
    fleet = fleet_of(60)
    fleet.run(lambda done: fleet.orchestrator.freeze(("cluster-00000",), "a drill", done))
    result = fleet.cascade(GO)
    assert (result["ready"], result["conflict"], result["verdict"]) == (30, 30, "RESOLVE_CONFLICTS")
    fleet.run(lambda done: fleet.orchestrator.thaw(("cluster-00000",), done))
    assert fleet.cascade(GO)["ready"] == 60


@pytest.mark.slow
def test_the_agents_of_a_lead_that_dies_go_to_another() -> None:
    fleet = fleet_of(90)
    fleet.kill(["cluster-00001"])
    fleet.time.run_for(60_000.0)
    assert all(agent.uplink is not None and agent.uplink.connected for agent in fleet.agents)
    assert {agent.uplink.welcome.name for agent in fleet.agents[30:60] if agent.uplink and agent.uplink.welcome} == {"cluster-00002"}
    result = fleet.cascade(GO)
    assert set(fleet.marks(result).ready_ms) == set(range(90))
    assert result["ready"] == 90


@pytest.mark.slow
def test_what_was_learned_halves_the_arrival_error_of_the_base_model() -> None:
    fleet = fleet_of(300, delays=True)
    fleet.warm_up(24)

    def error_p90_ms(estimator: int) -> float:
        fleet.use_estimator(estimator)
        errors_ms: list[float] = []
        for _ in range(4):
            errors_ms += fleet.errors_ms(fleet.cascade(Request(topic="lights.on", in_ms=1_000.0)))
            fleet.time.run_for(500.0)
        return quantile([abs(error_ms) for error_ms in errors_ms], 0.9)

    learned_ms, base_ms = error_p90_ms(LEARNED), error_p90_ms(BASE)
    assert learned_ms <= base_ms / 2, (learned_ms, base_ms)


@pytest.mark.slow
def test_a_flood_of_the_lowest_priority_does_not_hold_up_what_matters_most() -> None:
    fleet = fleet_of(60, delays=True)
    fleet.warm_up(10)
    results: list[Result] = []
    refused = 0
    for flood in range(300):
        try:
            fleet.orchestrator.broadcast(Request(topic="x.noise", priority=0, in_ms=0.0, timeout_ms=20_000.0), lambda result: None)
        except Busy:
            refused += 1
        if flood == 150:
            fleet.orchestrator.broadcast(Request(topic="lights.on", priority=3, in_ms=2_000.0, window_ms=200.0), results.append)
    assert refused > 0, "there is no end to what is taken"
    assert fleet.time.run_while(lambda: not results, 60_000.0)
    assert results[0]["ready"] >= 0.95 * 60, results[0]["reason"]


# Agents that an operator takes out.


def order(fleet, name, *arguments):
    return fleet.run(lambda done: getattr(fleet.orchestrator, name)(*arguments, done))


def test_an_isolated_agent_is_sent_nothing_until_it_is_readmitted():
    fleet = VirtualFleet(60, seed=3)
    fleet.start()
    assert order(fleet, "isolate", ("agent-000003",), "spindle noise")["outcome"] == "SUCCESS"
    fleet.time.run_for(12_000)
    assert fleet.orchestrator.status()["agents"]["quarantined"] == 1
    cascade = fleet.cascade(Request(topic="x.go"))
    assert cascade["ready"] == 59 and 3 not in fleet.marks(cascade).prepared
    assert order(fleet, "readmit", ("agent-000003",))["outcome"] == "SUCCESS"
    fleet.time.run_for(12_000)
    assert fleet.orchestrator.status()["agents"]["quarantined"] == 0
    assert fleet.cascade(Request(topic="x.go"))["ready"] == 60


def test_who_is_isolated_stays_so_over_a_restart_of_its_lead():
    fleet = VirtualFleet(30, seed=4)
    kept = []
    fleet.start()
    lead = fleet.leads[0]
    lead.world = replace(lead.world, keep=kept.append)
    order(fleet, "isolate", ("agent-000007",), "spindle noise")
    again = VirtualFleet(30, seed=4)
    again.start()
    again.leads[0].restore(kept[-1])
    assert again.leads[0].isolation.names == {"agent-000007": "spindle noise"}
    order(fleet, "readmit", ("agent-000007",))
    assert kept[-1] is None


def test_an_agent_that_is_gone_is_expected_until_it_is_forgotten():
    fleet = VirtualFleet(60, seed=5)
    fleet.start()
    fleet.kill(["agent-000011"])
    fleet.time.run_for(30_000)
    assert fleet.orchestrator.status()["agents"]["total"] == 60
    assert order(fleet, "forget_agents", ("agent-000011", "agent-000012"))["outcome"] == "SUCCESS"
    fleet.time.run_for(12_000)
    assert fleet.orchestrator.status()["agents"]["total"] == 59, "the one that is connected is not forgotten"
    assert "agent-000011" not in fleet.orchestrator.members and "agent-000012" in fleet.orchestrator.members


def test_a_lead_forgets_an_agent_that_has_gone_to_another_one():
    fleet = VirtualFleet(60, seed=6)
    fleet.start()
    fleet.kill(["agent-000011"])
    fleet.time.run_for(1_000)
    coordinator, (old, new) = fleet.coordinators[0], fleet.leads
    row = coordinator.children.by_name[new.identity.name].row
    coordinator.members.came(coordinator.members.by_row[row], {"agent-000011"})
    fleet.time.run_for(1_000)
    assert "agent-000011" not in old.members
    assert coordinator.members.above("agent-000011").name == new.identity.name
