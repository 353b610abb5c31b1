"""Lineages: three implementations agree, a planted error is found and shrunk to a small request, and tolerances mean what they say."""

import json
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from host.core import cbor
from host.core.errors import UsageError
from host.plugins.comparison import Comparison, Tolerance
from host.plugins.contract import SHAPES, AssessFeedstockRequest, HandleRequest
from sdk import compare as comparing
from sdk import project, samples, vectors
from sdk.build import build
from sdk.cli.main import app
from sdk.compare import Lineage, compare, differences
from sdk.demo.samples import LOT
from sdk.local import read_bundle
from sdk.shrinking import shrink
from skills import FOLDER

A, B, C = (FOLDER / name for name in ("feedstock-assessor", "feedstock-assessor-b", "feedstock-assessor-c"))
SOURCES = Path(__file__).resolve().parents[1] / "skills"
PLANTED = ("#define BOND_SQRT_UM 10.0", "#define BOND_SQRT_UM (particle_um < 75 ? 10.05 : 10.0)")


def rules() -> Comparison:
    return project.load(SOURCES / A.name).compare


def shared() -> list[tuple[Path, vectors.Vector]]:
    return vectors.load(SOURCES / A.name / "vectors")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lineage a with an error of 0.5 % in the energy of grinding, for fine products only."""
    folder = tmp_path_factory.mktemp("planted") / "planted"
    shutil.copytree(SOURCES / A.name, folder, ignore=shutil.ignore_patterns("*.wasm"))
    model = folder / "src" / "model.c"
    assert PLANTED[0] in model.read_text()
    model.write_text(model.read_text().replace(*PLANTED))
    build(project.load(folder))
    return folder


# ---- The three lineages ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_three_lineages_agree_on_the_vectors_and_on_what_is_made_up():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    report = compare(
        [Lineage(path.name, read_bundle(path / f"{A.name}.wasm")) for path in (A, B, C)], shared(), rules(), examples=1_500, seed=seed
    )
    assert [divergence.in_words for divergence in report.divergences] == []
    assert report.requests == 1_500 + len(shared())


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "lang"), [(B, "rust"), (C, "assemblyscript")], ids=["b", "c"])
def test_the_module_of_each_lineage_is_what_its_sources_compile_to_anywhere(folder, lang, require, tmp_path):
    require(lang)
    copy = tmp_path / "somewhere-else"
    shutil.copytree(SOURCES / folder.name, copy, ignore=shutil.ignore_patterns("*.wasm"))
    built = build(project.load(copy)).read_bytes()
    assert built == (folder / f"{A.name}.wasm").read_bytes(), f"run `snapcount skill build skills/{folder.name}` and commit the result"


@pytest.mark.slow
@pytest.mark.parametrize("folder", [B, C], ids=["b", "c"])
def test_each_lineage_passes_the_vectors_of_the_first_on_both_call_paths(folder):
    data = read_bundle(folder / f"{A.name}.wasm")
    for path, vector in shared():
        for force_plain in (False, True):
            assert not vectors.run(data, path, vector, force_plain=force_plain).problems


def test_the_lineages_are_one_skill_by_different_letters_and_languages():
    manifests = [project.load(SOURCES / path.name).manifest for path in (A, B, C)]
    assert {manifest.name for manifest in manifests} == {A.name}
    assert [manifest.lineage for manifest in manifests] == ["a", "b", "c"]
    assert [project.load(SOURCES / path.name).lang for path in (A, B, C)] == ["c", "rust", "assemblyscript"]


# ---- A planted error -------------------------------------------------------------------------


@pytest.mark.slow
def test_an_error_of_half_a_percent_in_one_lineage_is_found_and_shrunk_to_a_small_request(planted):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    lineages = [
        Lineage("a", read_bundle(A / f"{A.name}.wasm")),
        Lineage("planted", read_bundle(planted)),
        Lineage("c", read_bundle(C / f"{A.name}.wasm")),
    ]
    report = compare(lineages, shared(), rules(), examples=300, seed=seed)
    found = {divergence.field: divergence for divergence in report.divergences}
    assert set(found) == {"products.energy_kwh_t.value", "products.energy_kwh_t.sigma"}
    energy = found["products.energy_kwh_t.value"]
    assert energy.odd == ("planted",)
    assert "planted differs from the others" in energy.in_words
    request = energy.request
    (product,) = request["products"]
    assert len(request["assay"]) == 1
    assert product["impurities"] == []
    assert product["particle_um"] < 75.0
    assert (request["lot"], request["mass_kg"], request["moisture"]) == ("", {"sigma": 0.0, "value": 0.0}, {"sigma": 0.0, "value": 0.0})
    assert len(json.dumps(request)) < 500
    ((wrong,), (right,)) = energy.found["planted"], energy.found["a"]
    assert wrong / right == pytest.approx(1.005)


@pytest.mark.slow
def test_the_command_names_the_field_the_request_and_the_seed(planted):
    runner = CliRunner()
    told = runner.invoke(app, ["skill", "compare", str(SOURCES / A.name), str(planted), "--examples", "50", "--seed", "7", "--json"])
    assert told.exit_code == 1
    report = json.loads(told.output.splitlines()[-1])
    assert report["seed"] == 7
    request = report["divergences"][0]["request"]
    msgspec.convert(request, AssessFeedstockRequest)
    same = runner.invoke(app, ["skill", "compare", str(SOURCES / A.name), str(SOURCES / B.name), "--examples", "50"])
    assert same.exit_code == 0
    assert "they agree within the declared tolerances" in same.output


@pytest.mark.slow
def test_lineages_of_a_skill_that_keeps_state_and_moves_a_machine_are_compared_on_hosts_of_their_own():
    cell = FOLDER / "cell-start" / "cell-start.wasm"
    places = vectors.load(SOURCES / "cell-start" / "vectors")
    report = compare([Lineage("one", read_bundle(cell)), Lineage("other", read_bundle(cell))], places, Comparison(), examples=20, seed=1)
    assert report.divergences == []


def test_a_comparison_needs_two_lineages_with_a_hook_in_common():
    data = read_bundle(A / f"{A.name}.wasm")
    for lineages in ([Lineage("a", data)], [Lineage("a", data), Lineage("a", data)]):
        with pytest.raises(UsageError, match="a comparison needs"):
            compare(lineages, [], Comparison(), examples=1, seed=1)


# ---- Tolerances ------------------------------------------------------------------------------


def differ(one: object, other: object, **fields: Tolerance) -> list[str]:
    default = fields.pop("default", Tolerance())
    return list(differences(("reply", one), ("reply", other), Comparison(default=default, fields=fields)))


def test_the_longest_named_beginning_of_a_field_decides():
    one, other = {"a": {"b": 1.0, "c": [1.0, 2.0]}}, {"a": {"b": 1.004, "c": [1.0, 2.1]}}
    assert differ(one, other) == ["a.b", "a.c"]
    assert differ(one, other, a=Tolerance(relative=0.01)) == ["a.c"]
    assert (
        list(
            differences(
                ("reply", one), ("reply", other), Comparison(fields={"a.b": Tolerance(absolute=0.005), "a": Tolerance(relative=0.1)})
            )
        )
        == []
    )
    assert differ(one, other, default=Tolerance(absolute=0.2)) == []


def test_a_field_more_another_length_another_kind_and_another_outcome_are_differences():
    assert differ({"a": 1.0}, {"a": 1.0, "price": 2.0}) == ["price"]
    assert differ({"a": [1.0]}, {"a": [1.0, 2.0]}) == ["a"]
    assert differ({"a": True}, {"a": 1.0}, default=Tolerance(absolute=9.0)) == ["a"]
    assert differ({"a": b"x"}, {"a": b"y"}) == ["a"]
    assert list(differences(("reply", {}), ("error", "bad_assay"), Comparison())) == [comparing.NO_REPLY]
    assert list(differences(("error", "bad_assay"), ("error", "bad_assay"), Comparison())) == []


def test_sentences_are_the_same_but_for_the_last_digits_of_their_numbers():
    near = Tolerance(relative=1e-3)
    assert differ({"s": "P is 0.841 ± 1e-04 kg."}, {"s": "P is 0.8411 ± 0.0001 kg."}, s=near) == []
    assert differ({"s": "P is 0.841."}, {"s": "P is 0.85."}, s=near) == ["s"]
    assert differ({"s": "P is 0.841."}, {"s": "Fe is 0.841."}, s=near) == ["s"]
    assert differ({"s": "1 2"}, {"s": "1"}, s=near) == ["s"]


def test_what_is_not_finite_is_near_its_like_only():
    inf, nan = float("inf"), float("nan")
    wide = Tolerance(relative=1.0, absolute=1e300)
    assert [differ({"a": one}, {"a": other}, default=wide) for one, other in ((inf, 1.0), (1.0, -inf), (inf, -inf), (nan, 1.0))] == [
        ["a"]
    ] * 4
    assert [differ({"a": one}, {"a": one}, default=wide) for one in (inf, -inf, nan)] == [[], [], []]


# ---- Making requests up, and shrinking them --------------------------------------------------


def test_the_same_seed_makes_the_same_requests_up_and_half_of_them_are_sound():
    base = samples.plain(LOT)
    made = [samples.changed(base, AssessFeedstockRequest, random.Random(number)) for number in range(200)]
    assert made == [samples.changed(base, AssessFeedstockRequest, random.Random(number)) for number in range(200)]
    assert base == samples.plain(LOT), "the request that is changed stays as it was"
    sound = sum(comparing._typed("assess_feedstock", request) is not None for request in made)
    assert sound >= 100


@given(st.integers(0, 2**32), st.sampled_from(sorted(SHAPES)))
def test_a_request_from_nothing_but_its_type_is_sound(seed, hook):
    request = msgspec.convert(samples.fresh(SHAPES[hook][0], random.Random(seed)), SHAPES[hook][0])
    assert cbor.decode_struct(cbor.encode(request), SHAPES[hook][0], "request") == request


def test_a_request_shrinks_to_what_shows_the_difference_and_no_less():
    request = {
        "list": [{"n": 3.14159, "t": "copper"}, {"n": 77.77, "t": "iron"}],
        "name": "a long name",
        "bytes": b"12345678",
        "count": 900,
    }

    def shows(candidate: dict) -> bool:
        return any(item.get("n", 0.0) > 50 for item in candidate.get("list", [])) and candidate.get("count", 0) >= 7

    assert shrink(request, shows) == {"list": [{"n": 78.0}], "count": 7}


def test_a_name_that_stands_in_two_places_stays_the_same_in_both():
    request = {"assay": ["copper"], "sold": "copper", "other": "x"}
    assert shrink(request, lambda candidate: candidate.get("sold") in candidate.get("assay", [])) == {"assay": [""], "sold": ""}


def test_a_request_of_a_message_can_be_changed_and_shrunk_too():
    request = HandleRequest(
        at_ms=5, correlation=bytes(16), id=bytes(16), payload=b"abc", phase="act", priority=0, source="", topic="t", verb="act", weight=0.0
    )  # fmt: skip
    for number in range(50):
        changed = samples.changed(samples.plain(request), HandleRequest, random.Random(number))
        assert set(changed) == set(samples.plain(request))
