"""`snapcount skill`: from an empty folder to a signed bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdk.cli import skill_bench, skill_dev, skill_profile, skill_replay, skill_test
from sdk.cli.output import Json, emit, say, table, warn, working

if TYPE_CHECKING:
    from sdk.build import Verification

app = typer.Typer(help="Write, build, test and sign skills.", no_args_is_help=True)
app.command("bench", epilog=skill_bench.EXAMPLE)(skill_bench.bench)
app.command("profile", epilog=skill_profile.EXAMPLE)(skill_profile.profile)
app.command("dev", epilog=skill_dev.EXAMPLE)(skill_dev.dev)
app.command("replay", epilog=skill_replay.EXAMPLE)(skill_replay.replay)


class Lang(StrEnum):
    """The languages that `skill new` has a template for."""

    ZIG = "zig"
    C = "c"
    RUST = "rust"
    ASSEMBLYSCRIPT = "assemblyscript"
    PYTHON = "python"
    JAVASCRIPT = "javascript"


Folder = typer.Argument(Path(), help="The skill's folder.", show_default="this folder")
Module = typer.Argument(Path(), help="A .wasm file, or a skill's folder.", show_default="this folder")


@app.command(epilog="Example: snapcount skill new ore-sorter --lang zig")
def new(
    name: str = typer.Argument(help="Name of the skill: lower case, digits, single dashes."),
    lang: Lang = typer.Option(Lang.ZIG, help="Language."),
) -> None:
    """Make a folder with a skill that builds, passes its tests and can be pushed as it stands."""
    from sdk.scaffold import create

    folder = create(Path(), name, lang.value)
    say(f"{folder}/ is ready. Next:")
    say(f"  cd {folder} && snapcount skill build && snapcount skill test")


@app.command(epilog="Example: snapcount skill build ore-sorter")
def build(
    folder: Path = Folder, out: Path | None = typer.Option(None, "--out", help="Where to write the bundle."),
    verify: bool = typer.Option(False, "--verify", help="Build twice in other folders, compare both with the bundle in place, and write nothing."),
    as_json: bool = Json,
) -> None:  # fmt: skip
    """Compile a skill and put its manifest in. The bundle is unsigned."""
    from host.core.bundle import digest_of
    from sdk import project
    from sdk.build import build as compile_skill
    from sdk.build import verify as prove

    loaded = project.load(folder)
    with working(f"building {loaded.manifest.name}"), _compiler_heard():
        if verify:
            path, proof = loaded.module, prove(loaded, warn)
        else:
            path, proof = compile_skill(loaded, out, warn), None
    if proof is not None:
        _tell(loaded.manifest.name, proof, as_json)
        return
    data = path.read_bytes()
    if as_json:
        emit({"path": str(path), "bytes": len(data), "digest": digest_of(data)})
    else:
        say(f"{path}: {loaded.manifest.name} {loaded.manifest.version}, {len(data)} bytes, {digest_of(data)[:19]}…")


@contextmanager
def _compiler_heard() -> Iterator[None]:
    """Shows what a compiler said of sources that it refused."""
    from sdk.build import BuildFailed

    try:
        yield
    except BuildFailed as error:
        typer.echo(error.output, err=True, nl=False)
        raise


def _tell(name: str, found: "Verification", as_json: bool) -> None:
    if as_json:
        emit({"digest": found.first, "in_place": found.in_place, "problems": list(found.problems)})
    else:
        for problem in found.problems:
            say(f"FAILED {name}: {problem}")
        if not found.problems:
            beside = "and the bundle in place is the same" if found.in_place else "there is no bundle in place to compare with"
            say(f"{name}: two builds in two folders give {found.first[:19]}…; {beside}")
    if found.problems:
        raise typer.Exit(1)


app.command(name="test", epilog=skill_test.EXAMPLE)(skill_test.test)


@app.command(epilog="Example: snapcount skill check ore-sorter.wasm --allow log --generation 3")
def check(
    module: Path = Module,
    allow: list[str] = typer.Option([], "--allow", help="A capability that the owner allows; repeat it. Without any, all are."),
    generation: int | None = typer.Option(None, help="Hardware generation of the node to check for."),
    as_json: bool = Json,
) -> None:
    """Say in words what a module imports, exports, asks for, and would be refused for."""
    from sdk import inspection
    from sdk.local import read_bundle

    with working("compiling"):
        report = inspection.check(read_bundle(module), str(module), frozenset(allow) if allow else None, generation)
    if as_json:
        emit(report)
    else:
        for line in inspection.in_words(report):
            say(line)
    if report["refused"]:
        raise typer.Exit(20)


@app.command(epilog="Example: snapcount skill inspect ore-sorter.wasm")
def inspect(module: Path = Module, as_json: bool = Json) -> None:
    """Show a bundle's manifest, sections, digest and signatures."""
    from sdk import inspection, manifest_words
    from sdk.local import read_bundle

    report = inspection.describe(read_bundle(module), str(module))
    if as_json:
        emit(report)
        return
    manifest = report["manifest"]
    say(f"{manifest['name']} {manifest['version']}  {report['digest']}  {report['bytes']} bytes")
    table(["field", "value"], [("tier", report["tier"]), *manifest_words.rows(manifest)])
    say("")
    table(["section", "bytes"], report["sections"])
    say("")
    for signer in report["signers"] or ["nobody"]:
        say(f"signed by {signer} (not verified here)")


@app.command(epilog="Example: snapcount skill conformance ore-sorter.wasm")
def conformance(module: Path = Module, as_json: bool = Json) -> None:
    """Run the contract's own cases, sound requests and unsound ones, against a module."""
    from sdk import conformance as cases
    from sdk.local import read_bundle

    with working("running the contract's cases"):
        found = cases.run(read_bundle(module), str(module))
    if as_json:
        emit({"ran": found.ran, "failures": [vars(failure) for failure in found.failures]})
    else:
        for line in cases.in_words(found):
            say(line)
    if found.failures:
        raise typer.Exit(1)


@app.command(epilog="Example: snapcount skill compare skills/feedstock-assessor skills/feedstock-assessor-b skills/feedstock-assessor-c")
def compare(
    modules: list[Path] = typer.Argument(help="Two .wasm files or skill folders, or more."),
    examples: int = typer.Option(1_000, min=0, help="How many requests to make up beside the vectors."),
    seed: int | None = typer.Option(None, help="Makes the same requests as an earlier run.", show_default="at random"),
    as_json: bool = Json,
) -> None:
    """Run lineages of one skill on the same requests, and report where they differ by more than their skill.toml allows."""
    import secrets

    from host.plugins.comparison import Comparison
    from sdk import compare as comparing
    from sdk import project, vectors
    from sdk.local import read_bundle

    folders = [project.load(path) for path in modules if path.is_dir()]
    rules = next((folder.compare for folder in folders if folder.compare != Comparison()), Comparison())
    places = dict.fromkeys(folder.vectors.resolve() for folder in folders)
    lineages = [comparing.Lineage(str(path), read_bundle(path)) for path in modules]
    with working("comparing"):
        report = comparing.compare(
            lineages,
            [found for place in places for found in vectors.load(place)],
            rules,
            examples=examples,
            seed=secrets.randbits(32) if seed is None else seed,
        )
    if as_json:
        emit(comparing.as_json(report))
    else:
        for line in comparing.in_words(report):
            say(line)
    if report.divergences:
        raise typer.Exit(1)


@app.command(epilog="Example: snapcount skill sign ore-sorter.wasm --key author.key")
def sign(
    module: Path = Module,
    key: Path | None = typer.Option(
        None, "--key", help="The author's private key.", show_default="author.key, here or in ~/.config/snapcount, made at first use"
    ),
    out: Path | None = typer.Option(None, "--out", help="Where to write the signed bundle.", show_default="in place"),
    as_json: bool = Json,
) -> None:
    """Add a signature to a bundle."""
    from host.core import files, keys
    from host.core.bundle import UnverifiedBundle, digest_of, with_signature
    from sdk import project
    from sdk.author import author_key
    from sdk.local import read_bundle

    path = project.load(module).module if module.is_dir() else module
    unsigned = read_bundle(path)
    UnverifiedBundle.parse(unsigned, str(path))  # before a key is made for what cannot be signed
    signer = keys.load(key) if key else author_key(warn)
    data = with_signature(unsigned, signer, str(path))
    files.write_atomic(out or path, data)
    if as_json:
        emit({"path": str(out or path), "digest": digest_of(data), "signer": keys.public_text(signer.verify_key)})
    else:
        say(f"{out or path}: signed by {keys.public_text(signer.verify_key)}")
        say(f"digest {digest_of(data)}")
