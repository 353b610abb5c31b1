"""What a registry carries on a stick and what it throws away: export, import, garbage collection, and announcing what OCI clients pushed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from host.core import oci
from host.core.errors import DigestMismatch, OciRefused, SnapcountError, StateDamaged, TooLarge, UntrustedInput, UsageError
from host.core.limits import DEFAULT
from registry import layout
from registry import store as store_module
from registry.content import Content
from registry.store import BundleStore
from sdk.cli import registry as commands

MakeSkill = Callable[..., bytes]
OneLine = Callable[..., str]
DAY_S = 86_400


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def kept(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for part in ("blobs", "uploads", "trust") for p in (folder / part).rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_skill: MakeSkill) -> Path:
    """A registry's folder with two versions of a skill, another skill, a referrer without a tag, an index, and trust metadata."""
    folder = tmp_path_factory.mktemp("made") / "registry"
    store = BundleStore(folder)
    for version in ("1.0.0", "1.1.0"):
        store.add(make_skill(version=version, padding=10_000))
    store.announce(store.add(make_skill(name="other")).digest)
    content = store.content
    row, data = content.manifest("skills/greeter", "1.0.0")
    config = content.put("skills/greeter", b"{}")
    subject = {"mediaType": row.media_type, "digest": row.digest, "size": len(data)}
    referrer = json.dumps({
        "schemaVersion": 2, "mediaType": oci.MANIFEST, "config": {"mediaType": "application/x", "digest": config, "size": 2}, "layers": [],
        "subject": subject,
    }).encode()  # fmt: skip
    content.put_manifest("skills/greeter", digest_of(referrer), oci.MANIFEST, referrer)
    inner = json.dumps({"schemaVersion": 2, "manifests": [subject]}).encode()
    nested = content.put_manifest("skills/greeter", "set", oci.INDEX, inner)
    outer = json.dumps({"schemaVersion": 2, "manifests": [{"mediaType": oci.INDEX, "digest": nested.digest, "size": len(inner)}]}).encode()
    content.put_manifest("skills/greeter", "sets", oci.INDEX, outer)
    (folder / "trust" / "metadata").mkdir(parents=True)
    (folder / "trust" / "targets" / "skills").mkdir(parents=True)
    (folder / "trust" / "metadata" / "1.root.json").write_bytes(b"root")
    (folder / "trust" / "metadata" / "timestamp.json").write_bytes(b"timestamp")
    (folder / "trust" / "targets" / "skills" / "greeter").write_bytes(b"target")
    return folder


@pytest.fixture(scope="module")
def exported(made: Path) -> Path:
    layout.export(Content(made, sweep=False), made, made.parent / "stick")
    return made.parent / "stick"


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "registry")


@pytest.fixture
def stick(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "stick")


def load(stick: Path, folder: Path) -> tuple[int, int]:
    return layout.load(Content(folder), folder, stick)


# Export and import.


def test_what_was_exported_is_imported_with_every_tag_digest_and_trust_file(registry: Path, stick: Path, tmp_path: Path) -> None:
    assert json.loads((stick / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((stick / "index.json").read_bytes())
    assert {entry["annotations"][oci.REF_NAME] for entry in index["manifests"]} >= {
        "skills/greeter:1.0.0",
        "skills/greeter:1.1.0",
        "skills/other:1.0.0",
    }
    assert len(index["manifests"]) == 6
    other = tmp_path / "other"
    assert load(stick, other) == (6, 3)
    assert kept(other) == kept(registry)
    before, after = Content(registry, sweep=False), Content(other, sweep=False)
    assert after.index.repositories() == before.index.repositories()
    for repository in after.index.repositories():
        assert after.index.tags(repository, "", 100) == before.index.tags(repository, "", 100)
        assert after.index.manifests(repository) == before.index.manifests(repository)
    row, _ = after.manifest("skills/greeter", "1.0.0")
    assert len(after.referrers("skills/greeter", row.digest)) == 1
    assert load(stick, other) == (6, 3)  # and again
    assert (other / "trust" / "metadata" / "1.root.json").read_bytes() == b"root"


def test_an_imported_bundle_is_announced(stick: Path, tmp_path: Path, make_skill: MakeSkill) -> None:
    load(stick, tmp_path / "other")
    announced = BundleStore(tmp_path / "other").announce(digest_of(make_skill(version="1.1.0", padding=10_000)))
    assert (announced.name, announced.version) == ("greeter", "1.1.0")


def test_export_writes_over_nothing_and_no_altered_blob(registry: Path, stick: Path, tmp_path: Path, one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        layout.export(Content(registry, sweep=False), registry, stick)
    one_line(caught.value, stick, "empty")
    digest = digest_of(b"{}")
    Content(registry, sweep=False).path(digest).write_bytes(b"[]")
    with pytest.raises(DigestMismatch):
        layout.export(Content(registry, sweep=False), registry, tmp_path / "again")
    assert not (tmp_path / "again" / "oci-layout").exists()


def blob(stick: Path, large: bool = True) -> Path:
    return sorted((stick / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)[-1 if large else 0]


def rewrite(stick: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the first entry of index.json."""
    index = json.loads((stick / "index.json").read_bytes())
    change(index["manifests"][0])
    (stick / "index.json").write_text(json.dumps(index))


def outside(stick: Path) -> Path:
    path = stick.parent / "outside"
    path.mkdir(exist_ok=True)
    return path


def link_blob(stick: Path) -> None:
    path = blob(stick)
    path.rename(outside(stick) / "blob")
    path.symlink_to(outside(stick) / "blob")


def link_folder(stick: Path) -> None:
    shutil.move(stick / "blobs" / "sha256", outside(stick) / "sha256")
    (stick / "blobs" / "sha256").symlink_to(outside(stick) / "sha256")


def link_trust(stick: Path) -> None:
    (outside(stick) / "secret").write_bytes(b"secret")
    (stick / "trust" / "metadata" / "2.root.json").symlink_to(outside(stick) / "secret")


def link_trust_folder(stick: Path) -> None:
    (stick / "trust" / "targets" / "more").symlink_to(outside(stick))


def make_folder(stick: Path) -> None:
    path = blob(stick)
    path.unlink()
    path.mkdir()


def make_pipe(stick: Path) -> None:
    path = blob(stick)
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda s: blob(s).write_bytes(bytes(blob(s).stat().st_size)),
    "fewer bytes": lambda s: blob(s).write_bytes(blob(s).read_bytes()[:-1]),
    "more bytes": lambda s: blob(s).write_bytes(blob(s).read_bytes() + b"\0"),
    "a missing blob": lambda s: blob(s).unlink(),
    "a small missing blob": lambda s: blob(s, large=False).unlink(),
    "a blob that is a symbolic link": link_blob,
    "a folder that is a symbolic link": link_folder,
    "a pipe for a blob": make_pipe,
    "a folder for a blob": make_folder,
    "a trust file that is a symbolic link": link_trust,
    "a trust folder that is a symbolic link": link_trust_folder,
    "a digest that is a path": lambda s: rewrite(s, lambda e: e.update(digest="sha256:../../../etc/passwd")),
    "a digest of an unknown kind": lambda s: rewrite(s, lambda e: e.update(digest="md5:" + "0" * 32)),
    "a wrong size": lambda s: rewrite(s, lambda e: e.update(size=e["size"] + 1)),
    "an enormous size": lambda s: rewrite(s, lambda e: e.update(size=1 << 50)),
    "another media type": lambda s: rewrite(s, lambda e: e.update(mediaType="application/json")),
    "no name": lambda s: rewrite(s, lambda e: e.pop("annotations")),
    "a name that is a path": lambda s: rewrite(s, lambda e: e["annotations"].update({oci.REF_NAME: "../../x:1"})),
    "a tag that is a path": lambda s: rewrite(s, lambda e: e["annotations"].update({oci.REF_NAME: "x:../1"})),
    "an index that is none": lambda s: (s / "index.json").write_text("[]"),
    "an index over the bound": lambda s: (s / "index.json").write_bytes(b" " * (DEFAULT.oci_manifest_bytes_max + 1)),
    "no index": lambda s: (s / "index.json").unlink(),
    "an index that is a symbolic link": lambda s: ((s / "index.json").unlink(), (s / "index.json").symlink_to("/etc/passwd")),
    "no marker": lambda s: (s / "oci-layout").unlink(),
    "another version": lambda s: (s / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stick_with_anything_wrong_is_refused_and_nothing_is_kept(stick: Path, tmp_path: Path, damage: str, one_line: OneLine) -> None:
    DAMAGES[damage](stick)
    other = tmp_path / "other"
    with pytest.raises(UntrustedInput) as caught:
        load(stick, other)
    one_line(caught.value)
    assert kept(other) == []
    assert Content(other).index.repositories() == []


def test_a_manifest_on_a_stick_that_lies_about_a_blobs_size_is_refused(stick: Path, tmp_path: Path) -> None:
    path = stick / "index.json"
    index = json.loads(path.read_bytes())
    entry = next(e for e in index["manifests"] if e["annotations"][oci.REF_NAME] == "skills/other:1.0.0")
    manifest = json.loads((stick / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    manifest["layers"][0]["size"] -= 1
    lie = json.dumps(manifest).encode()
    entry.update(digest=digest_of(lie), size=len(lie))
    (stick / "blobs" / digest_of(lie).replace(":", "/")).write_bytes(lie)
    path.write_text(json.dumps(index))
    with pytest.raises(DigestMismatch):
        load(stick, tmp_path / "other")
    assert kept(tmp_path / "other") == []


def test_what_is_no_folder_is_a_usage_error(tmp_path: Path, one_line: OneLine) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "nothing", tmp_path / "other")
    one_line(caught.value, tmp_path / "nothing")


# Garbage collection.


def aged(folder: Path, seconds: float) -> None:
    for path in (folder / "blobs").rglob("*"):
        status = path.stat()
        os.utime(path, (status.st_atime, status.st_mtime - seconds))


def test_a_collection_removes_what_nothing_refers_to_and_nothing_else(registry: Path) -> None:
    store = BundleStore(registry)
    before = kept(registry)
    orphan = store.content.put("skills/greeter", b"referred to by nothing")
    (registry / "blobs" / "sha512" / ("0" * 128)).write_bytes(b"no row knows it")
    assert store.collect(DAY_S) == (0, 0)  # all of it is young
    aged(registry, 2 * DAY_S)
    fresh = store.content.put("skills/greeter", b"just pushed, its manifest is yet to come")
    assert store.collect(DAY_S) == (2, len(b"referred to by nothing") + len(b"no row knows it"))
    assert not store.content.index.is_linked("skills/greeter", orphan)
    assert kept(registry) == sorted([*before, f"blobs/{fresh.replace(':', '/')}"])
    with pytest.raises(OciRefused) as caught:
        store.content.blob("skills/greeter", orphan)
    assert caught.value.oci_code == "BLOB_UNKNOWN"


def test_a_collection_takes_a_deleted_skill_but_not_while_it_is_announced(registry: Path, make_skill: MakeSkill) -> None:
    store = BundleStore(registry)
    bundle = digest_of(make_skill(name="other"))
    row, _ = store.content.manifest("skills/other", "1.0.0")
    store.content.delete_manifest("skills/other", row.digest)
    aged(registry, 2 * DAY_S)
    store.collect(DAY_S)
    assert store.path(bundle).exists() and not store.path(row.digest).exists()
    store.withdraw("other")
    store.collect(DAY_S)
    assert not store.path(bundle).exists()
    assert store.content.index.repositories() == ["skills/greeter"]


def test_a_blob_that_is_wanted_again_is_young_again(registry: Path) -> None:
    content = Content(registry)
    digest = content.put("skills/greeter", b"old")
    aged(registry, 2 * DAY_S)
    assert content.mount("skills/other", "skills/greeter", digest)
    assert content.collect((), DAY_S) == (0, 0)


# Bundles as artifacts.


def test_an_uploaded_bundle_is_an_artifact_that_any_client_finds(tmp_path: Path, make_skill: MakeSkill) -> None:
    store, data = BundleStore(tmp_path / "registry"), make_skill()
    kept_as = store.add(data)
    row, manifest = store.content.manifest("skills/greeter", "1.0.0")
    assert row.media_type == oci.MANIFEST and row.kind == oci.WASM_CONFIG
    assert oci.wasm_layer(manifest, row.media_type, "x").digest == kept_as.digest == digest_of(data)
    assert store.content.blob("skills/greeter", kept_as.digest).read_bytes() == data


def test_what_another_client_pushed_keeps_its_manifest_when_it_is_announced(tmp_path: Path, make_skill: MakeSkill) -> None:
    store, data = BundleStore(tmp_path / "registry"), make_skill()
    made = oci.wasm_artifact(data, "greeter", "1.0.0")
    theirs = json.dumps(json.loads(made.manifest) | {"annotations": {"by": "another client"}}).encode()
    for part in (data, made.config):
        store.content.put("skills/greeter", part)
    row = store.content.put_manifest("skills/greeter", "1.0.0", oci.MANIFEST, theirs)
    for digest in (made.layer, row.digest):
        assert store.announce(digest).digest == made.layer
    assert store.content.manifest("skills/greeter", "1.0.0")[1] == theirs


def test_what_is_no_bundle_is_not_announced_however_it_came(tmp_path: Path, one_line: OneLine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BundleStore(tmp_path / "registry")
    config, junk = store.content.put("skills/x", b"{}"), store.content.put("skills/x", b"no wasm")
    parts = {"config": (config, 2), "layer": (junk, 7)}
    described = {key: {"mediaType": "application/wasm", "digest": digest, "size": size} for key, (digest, size) in parts.items()}
    for layers, kind in (([described["layer"]], SnapcountError), ([], UsageError)):
        data = json.dumps({"schemaVersion": 2, "config": described["config"], "layers": layers}).encode()
        row = store.content.put_manifest("skills/x", "1.0.0", oci.MANIFEST, data)
        with pytest.raises(kind) as caught:
            store.announce(row.digest)
        one_line(caught.value)
    monkeypatch.setattr(store_module, "DEFAULT", replace(DEFAULT, bundle_bytes_max=3))
    with pytest.raises(TooLarge):
        store.announce(junk)
    store.content.path(row.digest).unlink()
    with pytest.raises(StateDamaged):
        store.announce(row.digest)
    assert store.announced == {}


# The command line.


def snapcount(*arguments: object, code: int = 0) -> Any:
    ended = CliRunner().invoke(commands.app, [*map(str, arguments), "--json"])
    if code:
        assert isinstance(ended.exception, SnapcountError) and ended.exception.exit_code == code, ended.output
        return str(ended.exception)
    assert ended.exit_code == 0, ended.exception
    return json.loads(ended.stdout.splitlines()[-1])


def test_export_import_gc_and_tokens_from_a_command_line(registry: Path, tmp_path: Path) -> None:
    stick, other = tmp_path / "usb", tmp_path / "other"
    assert snapcount("export", stick, "--dir", registry) == {"folder": str(stick), "manifests": 6, "trust_files": 3}
    assert snapcount("import", stick, "--dir", other)["manifests"] == 6
    assert kept(other) == kept(registry)
    assert snapcount("gc", "--dir", other) == {"files": 0, "bytes": 0}
    assert "no registry's folder" in snapcount("gc", "--dir", tmp_path / "none", code=2)
    made = snapcount("token", "new", "ci", "--scope", "pull", "--scope", "push", "--repository", "skills/*", "--dir", other)
    assert made["token"] == f"ci:{made['secret']}" and len(made["secret"]) >= 43
    (listed,) = snapcount("token", "list", "--dir", other)["tokens"]
    assert (listed["name"], listed["scopes"], listed["repository"]) == ("ci", ["pull", "push"], "skills/*")
    assert "scopes" in snapcount("token", "new", "x", "--scope", "all", "--dir", other, code=2)
    assert snapcount("token", "revoke", "ci", "--dir", other) == {"revoked": "ci"}
    assert snapcount("token", "list", "--dir", other) == {"tokens": []}
    for wrong in (("--tls-key", "x"), ("--tls-certificate", stick / "oci-layout", "--tls-key", stick / "oci-layout")):
        assert "certificate" in snapcount("serve", "--dir", other, *wrong, code=2)
