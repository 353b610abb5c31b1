"""The hash-chained log: whatever is changed, taken out, put in or cut off shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from typer.testing import CliRunner

from host.core.errors import HostFault, SignatureInvalid, StateDamaged, UsageError
from host.core.keys import create
from registry import audit
from registry.audit import AuditLog, Entry
from registry.database import FILE, Database
from sdk.cli import audit as cli

OPERATOR = SigningKey(b"p" * 32)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / FILE)
    yield made
    made.close()


def filled(database: Database, rows: int = 10, first: int = 0) -> AuditLog:
    log = AuditLog(database)
    for number in range(first, first + rows):
        with database.transaction() as db:
            log.append(
                db, 1_000 + number, [Entry("start", "controller", {"rollout": f"r-{number % 2}", "node": f"node-{number}", "ü": "ö"})]
            )
    return log


def tamper(database: Database, statement: str, *values: Any) -> None:
    with database.transaction() as db:
        db.execute(statement, values)


def test_a_log_that_nobody_touched_is_verified_to_its_end(database: Database) -> None:
    log = filled(database)
    with database.transaction() as db:
        log.append(db, 5, [Entry("back", "x", {"number": number}) for number in range(2_500)])
    assert audit.verify(log.every()) == 2_510
    assert audit.verify([]) == 0
    assert log.rows(8)[0].detail == '{"node":"node-8","rollout":"r-0","ü":"ö"}'


def test_several_rows_of_one_transaction_follow_each_other_and_a_transaction_that_fails_leaves_none(database: Database) -> None:
    log = filled(database, 1)
    with database.transaction() as db:
        log.append(db, 5, [Entry("back", "x", {}), Entry("ended", "x", {})])
    with pytest.raises(ZeroDivisionError), database.transaction() as db:
        log.append(db, 6, [Entry("lost", "x", {})])
        raise ZeroDivisionError
    assert [row.kind for row in log.every()] == ["start", "back", "ended"] and audit.verify(log.every()) == 3


@pytest.mark.parametrize(("statement", "says"), [
    ("UPDATE audit SET detail = '{}' WHERE seq = 4", "row 4 was altered"),
    ("UPDATE audit SET who = 'somebody' WHERE seq = 4", "row 4 was altered"),
    ("UPDATE audit SET at_ms = 1 WHERE seq = 4", "row 4 was altered"),
    ("UPDATE audit SET kind = 'back' WHERE seq = 4", "row 4 was altered"),
    ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4", "row 4 was altered"),
    ("DELETE FROM audit WHERE seq = 4", "row 4 is missing: row 5"),
    ("DELETE FROM audit WHERE seq = 1", "row 1 is missing: row 2"),
    ("INSERT INTO audit SELECT 0, at_ms, kind, who, detail, hash FROM audit WHERE seq = 1", "row 1 is missing: row 0"),
])  # fmt: skip
def test_the_first_row_that_does_not_follow_is_named(database: Database, statement: str, says: str, one_line: Any) -> None:
    log = filled(database)
    tamper(database, statement)
    with pytest.raises(StateDamaged) as caught:
        audit.verify(log.every())
    one_line(caught.value, "audit log", says)


def test_rows_that_were_rewritten_with_sound_hashes_show_against_a_head_that_was_kept(database: Database) -> None:
    log = filled(database)
    kept = audit.verify_head(audit.sign_head(log.head(9), OPERATOR), [OPERATOR.verify_key])
    filled(database, 5, first=10)
    assert audit.verify(log.every(), kept) == 15
    tamper(database, "DELETE FROM audit WHERE seq > 8")
    with pytest.raises(StateDamaged, match="ends at row 8, and was signed with 10"):
        audit.verify(log.every(), kept)
    filled(database, 5, first=50)
    assert audit.verify(log.every()) == 13, "by itself it is a sound log"
    with pytest.raises(StateDamaged, match="row 10 is not the one that was signed"):
        audit.verify(log.every(), kept)


def test_a_head_by_a_stranger_is_refused(database: Database) -> None:
    with pytest.raises(SignatureInvalid):
        audit.verify_head(audit.sign_head(filled(database).head(9), OPERATOR), [SigningKey(b"q" * 32).verify_key])


def test_the_last_rows_of_a_roll_out_are_found_by_its_index(database: Database) -> None:
    log = filled(database)
    with database.transaction() as db:
        log.append(db, 5, [Entry("stage", "x", {"rollout": "r-1"}), Entry("stage", "x", {"rollout": "r-0"})])
    assert [row.seq for row in log.last(3)] == [12, 11, 10]
    assert [row.seq for row in log.last(3, "r-1")] == [11]
    with database.reading() as db:
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT seq FROM audit WHERE json_extract(detail, '$.rollout') = 'r-1' AND kind <> 'start' ORDER BY seq DESC LIMIT 3"
        ).fetchall()
    assert "audit_rollout" in plan[0][3]


def test_a_database_that_is_none_is_named_and_left_as_it_was(tmp_path: Path, one_line: Any) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StateDamaged) as caught:
        Database(path)
    one_line(caught.value, str(path), "restore")
    with pytest.raises(HostFault):
        Database(tmp_path / FILE / "below-a-file")


def test_the_command_line_verifies_shows_and_finds_what_was_altered(database: Database, tmp_path: Path) -> None:
    log = filled(database)
    key = create(tmp_path / "operator.key", b"p" * 32)
    (tmp_path / "head.cose").write_bytes(audit.sign_head(log.head(9), key))
    run = CliRunner().invoke
    found = run(
        cli.app,
        ["verify", "--dir", str(tmp_path), "--head", str(tmp_path / "head.cose"), "--operator", str(tmp_path / "operator.pub"), "--json"],
    )
    assert found.stdout.strip() == '{"rows": 10, "verified": true}'
    shown = run(cli.app, ["show", "--dir", str(tmp_path), "--rollout", "r-1", "--last", "2"])
    assert "node-7" in shown.stdout and "node-9" in shown.stdout and "node-8" not in shown.stdout
    tamper(database, "UPDATE audit SET who = 'x' WHERE seq = 3")
    assert isinstance(run(cli.app, ["verify", "--dir", str(tmp_path)]).exception, StateDamaged)
    assert isinstance(run(cli.app, ["verify", "--dir", str(tmp_path / "nowhere")]).exception, UsageError)
