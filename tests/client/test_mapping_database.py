"""Tables of a database on their way to the plan: real SQLite here, servers in tests/e2e."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from greylag_client.cli import app
from greylag_client.mapping import database
from greylag_client.mapping.database import Database, parse_database, read_database
from greylag_client.mapping.document import read_mapping
from greylag_client.mapping.questions import Question
from greylag_client.mapping.table_files import Mapped, map_file
from greylag_client.table import load_table
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, Feature, Target
from typer.testing import CliRunner

DATA = DataTerms(
    standard="glasses@1.0",
    task="regression",
    targets=(Target(name="tg_k", unit="K", range=(300, 1300)),),
    features=(Feature(names=("SiO2", "Na2O"), unit="mol%", range=(0, 100)),),
    group="batch",
    holdout=0.2,
    expected_records=1000,
    max_records_per_firm=500,
)
SECRET = "Swordfish9"  # noqa: S105 - made up


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lab.db"
    with sqlite3.connect(path) as made:
        made.executescript(
            """
            CREATE TABLE recipes (batch TEXT, silica REAL, "Na2O (mol%)" REAL, "Tg (°C)" NUMERIC,
                                  note TEXT, photo BLOB);
            INSERT INTO recipes VALUES ('A', 70, 30, 500.5, '5 % off: see A', x'00ff'),
                                       ('A', 71, 29, 501, NULL, NULL),
                                       ('B', 60, 40, NULL, '', NULL),
                                       ('B', 61, 39, 480, 'a;b', NULL);
            CREATE TABLE "odd ""name" (x INTEGER);
            CREATE VIEW good AS SELECT * FROM recipes WHERE "Tg (°C)" > 490;
            """
        )
    made.close()
    return f"sqlite:///{path}"


def no_question(question: Question) -> int:
    raise AssertionError(question.text)


def mapped(
    source: Database,
    ask: Callable[[Question], int] = no_question,
    mapping: Path | None = None,
) -> Mapped:
    return map_file(source, DATA, out=None, mapping_path=mapping, normalise=False, ask=ask)


def table(url: str, name: str | None) -> Database:
    return parse_database(url, table=name, query=None)


def query(url: str, tmp_path: Path, text: str) -> Database:
    path = tmp_path / "few.sql"
    path.write_text(text, encoding="utf-8")
    return parse_database(url, table=None, query=path)


def test_a_table_of_a_database_becomes_one_that_fits(url: str, tmp_path: Path) -> None:
    result = mapped(table(url, "recipes"))
    assert result.unfit is None
    assert result.out.resolve() == tmp_path / "recipes.mapped.csv"
    clean = load_table(result.out, DATA)
    assert clean.features[:, 0].tolist() == [70, 71, 61]
    assert clean.targets[:, 0].tolist() == [773.65, 774.15, 753.15]
    assert clean.groups == ("A", "A", "B")


def test_the_mapping_remembers_the_table_and_asks_nothing(url: str) -> None:
    first = mapped(table(url, "good"))
    kept = read_mapping(first.mapping_path)
    assert (kept.kind, kept.sheet) == ("sql", "good")
    assert "sqlite:" not in first.mapping_path.read_text(encoding="utf-8")
    again = mapped(table(url, None), mapping=first.mapping_path)
    assert (again.questions, again.table.rows) == (0, 2)


def test_a_mapping_for_a_database_is_not_for_a_file(url: str, tmp_path: Path) -> None:
    kept = mapped(table(url, "recipes")).mapping_path
    path = tmp_path / "a.csv"
    path.write_text("batch,silica,Na2O (mol%),Tg (°C)\nA,70,30,500\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="the mapping is for sql"):
        map_file(path, DATA, out=None, mapping_path=kept, normalise=False, ask=no_question)


def test_a_query_is_read_with_its_quotes_percents_and_comments(url: str, tmp_path: Path) -> None:
    text = """-- what; we need
        SELECT batch, silica, 30 AS "Na2O", silica % 7 AS rest, 'a;b 5 % :x -- no' AS note
        /* of; all */ FROM recipes WHERE note LIKE '5 \\%%' ESCAPE '\\' ORDER BY 2;
    """
    rows = read_database(query(url, tmp_path, text))
    assert rows == [
        ["batch", "silica", "Na2O", "rest", "note"],
        ["A", 70.0, 30, 0.0, "a;b 5 % :x -- no"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM recipes",
        "SELECT 1; DROP TABLE recipes",
        "ATTACH 'x' AS y",
        "-- SELECT\nPRAGMA journal_mode = DELETE",
        "",
    ],
)
def test_only_one_select_is_taken(url: str, tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="one SELECT and nothing else"):
        query(url, tmp_path, text)


def test_a_query_cannot_write(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the query is refused"):
        read_database(query(url, tmp_path, "WITH a AS (SELECT 1) DELETE FROM recipes"))
    assert len(read_database(table(url, "recipes"))) == 5


@pytest.mark.parametrize("name", ['odd "name', "recipes; DROP TABLE recipes", "recipe", None])
def test_names_are_names(url: str, name: str | None) -> None:
    if name == 'odd "name':
        assert read_database(table(url, name)) == [["x"]]
        return
    with pytest.raises(ConfigError, match="--table NAME") as caught:
        read_database(table(url, name))
    assert 'good, odd "name, recipes' in str(caught.value)
    assert ("is it 'recipes'?" in str(caught.value)) == (name == "recipe")


@pytest.mark.parametrize(
    "given",
    [
        f"postgresql://me:{SECRET}@db.example/lab",
        f"postgresql://me:{SECRET}/x@db.example/lab",
        f"postgresql://me:{SECRET}@@db.example:5432/lab",
        f"mysql://db.example/lab?password={SECRET}",
        f"postgres://me:{SECRET}:x@db:x/lab",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(given: str, tmp_path: Path) -> None:
    plan = Path(__file__).parents[2] / "docs/examples/glass.toml"
    done = CliRunner().invoke(app, ["map", given, "--table", "recipes", "--plan", str(plan)])
    assert isinstance(done.exception, ConfigError)
    assert SECRET not in str(done.exception) + done.output
    assert "environment" in str(done.exception) or "only tls=off" in str(done.exception)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("oracle://db.example/lab", "known are postgresql"),
        ("postgresql://db.example", "names no database"),
        ("sqlite:///nowhere.db", "no such file"),
        ("mysql://db.example/lab?tls=maybe", "only tls=off is known"),
        ("postgresql://127.0.0.1:1/lab", "no name for the database 'lab'"),
    ],
)
def test_urls_that_lead_nowhere(given: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GREYLAG_DB_USER", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=said):
        read_database(table(given, "recipes"))


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_not_there(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREYLAG_DB_USER", "me")
    monkeypatch.setenv("GREYLAG_DB_PASSWORD", SECRET)
    with pytest.raises(ConfigError, match="cannot be reached") as caught:
        read_database(table(f"{scheme}://127.0.0.1:1/lab", "recipes"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("scheme", "module"), [("postgresql", "pg8000"), ("mysql", "pymysql")])
def test_a_missing_driver_names_what_to_install(
    scheme: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREYLAG_DB_USER", "me")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'greylag\[sql\]'"):
        read_database(table(f"{scheme}://127.0.0.1:1/lab", "recipes"))


def test_a_file_that_is_no_database(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"secret cells" * 100)
    with pytest.raises(ConfigError, match="cannot be reached or read"):
        read_database(table(f"sqlite:///{tmp_path / 'a.db'}", "recipes"))


def test_endless_queries_and_tables_are_bounded(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"
    monkeypatch.setattr(database, "MAX_CELLS", 5_000)
    with pytest.raises(ConfigError, match="more than 2500 rows of 2 columns"):
        read_database(query(url, tmp_path, endless.format("x, x AS y")))
    monkeypatch.setattr(database, "STATEMENT_S", 0)
    with pytest.raises(ConfigError, match="it was stopped"):
        read_database(query(url, tmp_path, endless.format("max(x)")))


def test_options_for_databases_do_not_go_with_files(tmp_path: Path) -> None:
    plan = Path(__file__).parents[2] / "docs/examples/glass.toml"
    done = CliRunner().invoke(app, ["map", "a.csv", "--table", "x", "--plan", str(plan)])
    assert "belong to a database" in str(done.exception)
    with pytest.raises(ConfigError, match="not both"):
        parse_database("sqlite:///a.db", table="x", query=tmp_path / "a.sql")
