"""`map` from real servers: types, quoting, refusals, time limits, TLS; through the real program."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from database_servers import PASSWORD, REMOTE, USER, Server, mariadb, postgres
from greylag_client.mapping import database
from greylag_client.mapping.database import parse_database, read_database
from greylag_protocols.errors import ConfigError

pytestmark = pytest.mark.e2e
CLIENT = Path(sys.executable).with_name("greylag-client")
PLAN = Path(__file__).parents[2] / "docs/examples/glass.toml"
TABLE = 'Rezepte "2024" 50 %'
ROWS = 800
POSTGRES = f"""
CREATE SCHEMA other;
CREATE TABLE "Rezepte ""2024"" 50 %" (
    "Patent No." text, silica numeric(10,3), soda numeric(10,3), "Tg [°C]" double precision,
    measured timestamptz DEFAULT '2024-05-06 07:08:09+00', tried boolean DEFAULT true,
    curve double precision[] DEFAULT '{{1,2.5}}', more jsonb DEFAULT '{{"a": "Schrödinger"}}',
    picture bytea DEFAULT '\\x00ff', note text);
INSERT INTO "Rezepte ""2024"" 50 %" ("Patent No.", silica, soda, "Tg [°C]", note)
    SELECT 'P' || n / 5, 60 + n * 0.025, 40 - n * 0.025, CASE n % 10 WHEN 9 THEN NULL
        ELSE 450 + n * 0.25 END, CASE n % 3 WHEN 0 THEN 'cloudy; 5 % "blue", 好' END
    FROM generate_series(0, {ROWS - 1}) AS n;
CREATE TABLE other.few (x numeric); INSERT INTO other.few VALUES ('NaN'), (NULL), (1e20), (7.0);
CREATE SEQUENCE numbers;
"""
MARIADB = f"""SET NAMES utf8mb4;
CREATE TABLE `Rezepte "2024" 50 %` (
    `Patent No.` varchar(20), silica decimal(10,3), soda decimal(10,3), `Tg [°C]` double,
    measured datetime DEFAULT '2024-05-06 07:08:09', tried bool DEFAULT true,
    picture blob DEFAULT x'00ff', note text) CHARACTER SET utf8mb4;
INSERT INTO `Rezepte "2024" 50 %` (`Patent No.`, silica, soda, `Tg [°C]`, note)
    SELECT concat('P', seq DIV 5), 60 + seq * 0.025, 40 - seq * 0.025,
        CASE seq MOD 10 WHEN 9 THEN NULL ELSE 450 + seq * 0.25 END,
        CASE seq MOD 3 WHEN 0 THEN 'cloudy; 5 % "blue", 好' END
    FROM seq_0_to_{ROWS - 1};
"""


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    start = {"postgresql": (postgres, POSTGRES), "mysql": (mariadb, MARIADB)}
    run, script = start[request.param]
    with run(script, tls=True) as running:
        yield running


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREYLAG_DB_USER", USER)
    monkeypatch.setenv("GREYLAG_DB_PASSWORD", PASSWORD)


def run_map(where: Path, *arguments: str, password: str = PASSWORD, answers: str = "") -> str:
    """Standard output and error together; no secret may be in them."""
    done = subprocess.run(
        [CLIENT, "map", *arguments, "--plan", str(PLAN)],
        cwd=where,
        env=os.environ | {"GREYLAG_DB_USER": USER, "GREYLAG_DB_PASSWORD": password},
        input=answers,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert password not in said
    assert "Traceback" not in said
    return " ".join(said.split())  # lines are broken anywhere


def test_a_table_reaches_the_plan_and_the_mapping_asks_nothing(
    server: Server, tmp_path: Path
) -> None:
    said = run_map(tmp_path, server.url(), "--table", TABLE)
    assert "The table fits the plan." in said
    (mapping,) = tmp_path.glob("*.mapping.toml")
    (clean,) = tmp_path.glob("*.mapped.csv")
    kept = mapping.read_text(encoding="utf-8")
    assert 'kind = "sql"' in kept
    assert "127.0.0.1" not in kept
    with clean.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROWS * 9 // 10
    for row in rows:
        number = int(row["source_row"]) - 2
        assert float(row["SiO2"]) == pytest.approx(60 + number * 0.025, abs=1e-9)
        assert float(row["tg_k"]) == pytest.approx(450 + number * 0.25 + 273.15, abs=1e-9)
        assert row["ref_id"] == f"P{number // 5}"
    clean.unlink()
    assert "fits" in run_map(tmp_path, server.url(), "--mapping", mapping.name)


def test_other_values_stay_text(server: Server, known: None) -> None:
    names, first, *_ = read_database(parse_database(server.url(), table=TABLE, query=None))
    row = dict(zip(names, first, strict=True))
    assert row["silica"] == 60
    assert str(row["measured"]).startswith("2024-05-06 07:08:09")
    assert row["picture"] == "00ff"
    assert row["note"] == 'cloudy; 5 % "blue", 好'
    if server.scheme == "postgresql":
        assert (row["tried"], row["curve"]) == ("True", "[1.0, 2.5]")
        few = read_database(parse_database(server.url(), table="other.few", query=None))
        assert [str(cell) for (cell,) in few] == ["x", "nan", "None", str(10**20), "7"]


def test_a_query_passes_as_it_is_written(server: Server, tmp_path: Path, known: None) -> None:
    quoted = '"' if server.scheme == "postgresql" else "`"
    name = quoted + TABLE.replace('"', '""' if quoted == '"' else '"') + quoted
    text = f"""SELECT silica, 17 % 5 AS rest, '5 %: x; -- y' AS t -- don't; stop
        FROM {name} /* it's; */ WHERE note LIKE '%5 \\%%' ORDER BY silica DESC"""
    path = tmp_path / "few.sql"
    path.write_text(text, encoding="utf-8")
    rows = read_database(parse_database(server.url(), table=None, query=path))
    assert rows[0] == ["silica", "rest", "t"]
    assert len(rows) - 1 == -(-ROWS // 3)
    assert {(row[1], row[2]) for row in rows[1:]} == {(2, "5 %: x; -- y")}


@pytest.mark.parametrize(
    ("url", "arguments", "password", "expected"),
    [
        ("{lab}", ["--table", "x"], "wrong-Secret-1", "does not accept the name or the password"),
        ("{lab}", ["--table", "rezepte 2024 50 %"], PASSWORD, "name one with --table NAME"),
        ("{lab}", [], PASSWORD, TABLE),
        ("{lab}x", ["--table", "x"], PASSWORD, ""),
        ("{lab}", ["--query", "wrong.sql"], PASSWORD, "the query is refused"),
    ],
)
def test_refusals_say_what_to_do(
    server: Server, tmp_path: Path, url: str, arguments: list[str], password: str, expected: str
) -> None:
    (tmp_path / "wrong.sql").write_text("SELECT nothing FROM nowhere")
    where = url.format(lab=server.url())
    assert expected in run_map(tmp_path, where, *arguments, password=password)
    assert not list(tmp_path.glob("*.csv"))


def test_nothing_is_written(server: Server, tmp_path: Path) -> None:
    texts = (
        ["SELECT nextval('numbers') AS x", "WITH a AS (DELETE FROM other.few RETURNING x) "
         "SELECT * FROM a"]
        if server.scheme == "postgresql"
        else [f"SELECT 1 INTO OUTFILE '{tmp_path}/stolen'", "SELECT 1 INTO @x"]
    )  # fmt: skip
    path = tmp_path / "few.sql"
    for text in texts:
        path.write_text(text)
        said = run_map(tmp_path, server.url(), "--query", "few.sql")
        assert "it must only read" in said or "the query is refused" in said
    assert not (tmp_path / "stolen").exists()


def test_a_slow_query_is_stopped(
    server: Server, tmp_path: Path, known: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STATEMENT_S", 1)
    sleep = "pg_sleep(60)" if server.scheme == "postgresql" else "sleep(60)"
    path = tmp_path / "slow.sql"
    path.write_text(f"SELECT {sleep} AS x")
    with pytest.raises(ConfigError, match="it was stopped"):
        read_database(parse_database(server.url(), table=None, query=path))


def test_beyond_this_machine_the_certificate_is_verified(
    server: Server, tmp_path: Path, known: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parse_database(server.url(REMOTE), table=TABLE, query=None)
    with pytest.raises(ConfigError, match="set GREYLAG_DB_CA"):
        read_database(source)
    monkeypatch.setenv("GREYLAG_DB_CA", str(server.ca))
    assert len(read_database(source)) == ROWS + 1
    monkeypatch.setenv("GREYLAG_DB_CA", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no file at"):
        read_database(source)


@pytest.mark.parametrize(("start", "script"), [(postgres, POSTGRES), (mariadb, MARIADB)])
def test_beyond_this_machine_nothing_goes_in_the_open_unasked(
    start: object, script: str, known: None
) -> None:
    with start(script, tls=False) as server:  # type: ignore[operator]
        with pytest.raises(ConfigError, match="offers no TLS"):
            read_database(parse_database(server.url(REMOTE), table=TABLE, query=None))
        allowed = parse_database(server.url(REMOTE, "?tls=off"), table=TABLE, query=None)
        assert len(read_database(allowed)) == ROWS + 1
