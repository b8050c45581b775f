"""A table of a database as a sheet: PostgreSQL, MySQL or MariaDB, SQLite; read, never written.

Name and password come from the environment alone, since arguments are seen in the list of
processes. What a driver says is passed on only where it is about the person's own query: other
messages may quote cells.
"""

import difflib
import ipaddress
import logging
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greylag_protocols.errors import ConfigError

from greylag_client.mapping.cells import Cell, to_cell
from greylag_client.mapping.limits import MAX_CELLS, MAX_TEXT
from greylag_client.mapping.questions import shortened

SCHEMES = {  # of a URL: SQLAlchemy's name of dialect and driver, and the driver's own variables
    "postgresql": ("postgresql+pg8000", "PGUSER", "PGPASSWORD"),
    "postgres": ("postgresql+pg8000", "PGUSER", "PGPASSWORD"),
    "mysql": ("mysql+pymysql", "", "MYSQL_PWD"),
    "mariadb": ("mysql+pymysql", "", "MYSQL_PWD"),
    "sqlite": ("sqlite", "", ""),
}
USER, PASSWORD, CA_FILE = "GREYLAG_DB_USER", "GREYLAG_DB_PASSWORD", "GREYLAG_DB_CA"
CONNECT_S, STATEMENT_S = 10, 60
MAX_ROWS = 1_000_000
MAX_QUERY_BYTES = 1 << 16
_BATCH = 1_000
_MYSQL_QUERY_ERRORS = (1054, 1064, 1142, 1146)  # no such column, syntax, not permitted, no table
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<quoted>'(?:[^']|'')*'|"[^"]*"|`[^`]*`)|(?P<open>['"`])""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """Where a table lies: a database and either a table's (or view's) name or one SELECT.

    Attributes:
        url: without a password.
        table: a name, perhaps as schema.name; empty for a query, or where a mapping names it.
        query: one SELECT.
        home: beside which file the results lie: named as table or query, in this directory.
    """

    url: str
    table: str = ""
    query: str = ""
    home: Path

    @property
    def name(self) -> str:
        return self.home.stem


def is_database(source: str) -> bool:
    """Whether a source is a database's URL rather than a file."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) is not None


def parse_database(url: str, *, table: str | None, query: Path | None) -> Database:
    """A database from what a person typed.

    Raises:
        ConfigError: a password in the URL, an unknown scheme, table and query at once, or a file
            that does not hold one SELECT.
    """
    _parse_url(url)
    if table and query:
        raise ConfigError("give --table NAME or --query FILE.sql, not both")
    if query is not None:
        return Database(url=url, query=_read_query(query), home=Path(query.name))
    plain = re.sub(r"[^\w-]+", "_", table or "table").strip("_") or "table"
    return Database(url=url, table=table or "", home=Path(plain))


def read_database(source: Database, *, table: str = "") -> list[list[Cell]]:
    """Names of the columns, then the rows.

    Args:
        table: used where the source names neither table nor query.

    Raises:
        ConfigError: a driver is missing, the server cannot be reached or refuses, there is no such
            table, the query is wrong or too slow, or there is too much of it.
    """
    with _connect(source.url) as connection:
        if source.query:
            statement = f"SELECT * FROM (\n{source.query}\n) AS q"
        else:
            statement = f"SELECT * FROM {_find_table(connection, source.table or table)}"
        result = connection.exec_driver_sql(
            f"{statement} LIMIT {MAX_ROWS + 1}",
            execution_options={"stream_results": True, "no_parameters": True},
        )
        rows: list[list[Cell]] = [[str(name)[:MAX_TEXT] for name in result.keys()]]  # noqa: SIM118 - no dict
        most = min(MAX_ROWS, MAX_CELLS // len(rows[0]))
        for batch in result.partitions(_BATCH):
            rows.extend([to_cell(value) for value in row] for row in batch)
            if len(rows) - 1 > most:
                raise ConfigError(
                    f"{source.name}: more than {most} rows of {len(rows[0])} columns; take what "
                    "is needed with --query FILE.sql"
                )
    return rows


def _parse_url(url: str) -> Any:
    sqlalchemy = _sqlalchemy()
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{scheme}:// is no database that is read; known are {', '.join(SCHEMES)}"
        )
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # a password in it may be what breaks it
        raise ConfigError(
            "the database's URL cannot be read; write it as postgresql://HOST:PORT/DATABASE, "
            f"without a password (that belongs in the environment, {PASSWORD})"
        ) from None
    # Anything before an @ with a colon in it may be one, however the rest was understood.
    if parsed.password is not None or "@" in (parsed.database or ""):
        raise ConfigError(
            "the URL holds a password, which everyone on this machine can see in the list of "
            f"processes; take it out, change it, and set {USER} and {PASSWORD} in the environment"
        )
    odd = set(parsed.query) - {"tls"}
    if odd or parsed.query.get("tls", "off") != "off":
        raise ConfigError("behind the ? of a database's URL only tls=off is known")
    if not parsed.database:
        raise ConfigError(
            "the URL names no database; write postgresql://HOST/DATABASE, mysql://HOST/DATABASE or "
            "sqlite:///FILE"
        )
    return parsed


@contextmanager
def _connect(url: str) -> Iterator[Any]:
    """A connection in a transaction that reads, with every driver's error in plain words."""
    sqlalchemy = _sqlalchemy()
    parsed = _parse_url(url)
    driver, user_variable, password_variable = SCHEMES[parsed.drivername]
    # What is told of a cursor that does not close after an error would be a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    where = f"the database {parsed.database!r}" + (f" at {parsed.host}" if parsed.host else "")
    given: dict[str, Any] = {}
    if driver == "sqlite":
        parsed, given = _sqlite(parsed)
    else:
        environment = os.environ
        user = environment.get(USER) or environment.get(user_variable) or None
        password = environment.get(PASSWORD) or environment.get(password_variable) or None
        if not (parsed.username or user):
            raise ConfigError(f"no name for {where}; set {USER} and {PASSWORD} in the environment")
        parsed = parsed.set(
            username=parsed.username or user, password=password, host=parsed.host or "localhost"
        )
        encrypted = "tls" not in parsed.query and not _is_local(parsed.host)
        context = ssl.create_default_context(cafile=_ca_file()) if encrypted else None
        if driver == "mysql+pymysql":
            given = {"connect_timeout": CONNECT_S, "read_timeout": STATEMENT_S + CONNECT_S}
            given |= {"ssl": context} if context else {"ssl_disabled": "tls" in parsed.query}
        else:
            plain = False if "tls" in parsed.query else None
            given = {"timeout": STATEMENT_S + CONNECT_S, "ssl_context": context or plain}
        parsed = parsed.set(query={})  # tls is our own word
    try:
        engine = sqlalchemy.create_engine(
            parsed.set(drivername=driver),
            connect_args=given,
            poolclass=sqlalchemy.pool.NullPool,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is needed to read {where}; {_INSTALL}") from None
    try:
        with engine.connect() as connection:
            for statement in _precautions(connection):
                connection.exec_driver_sql(statement)
            yield connection
            connection.rollback()
    except (sqlalchemy.exc.SQLAlchemyError, OSError, ValueError) as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None
    finally:
        engine.dispose()


_INSTALL = "install it with: pip install 'greylag[sql]'"


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ModuleNotFoundError:
        raise ConfigError(f"SQLAlchemy is needed to read databases; {_INSTALL}") from None
    return sqlalchemy


def _sqlite(parsed: Any) -> tuple[Any, dict[str, Any]]:
    """URL and arguments that open a file that is there, to read it, for a limited time."""
    import sqlite3

    path = Path(parsed.database)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; check the path behind sqlite:///")

    class Limited(sqlite3.Connection):
        """Statements end after STATEMENT_S."""

        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            until = time.monotonic() + STATEMENT_S
            self.set_progress_handler(lambda: time.monotonic() > until, 100_000)

    opened = parsed.set(database=path.resolve().as_uri(), query={"mode": "ro", "uri": "true"})
    return opened, {"factory": Limited, "timeout": CONNECT_S}


def _precautions(connection: Any) -> tuple[str, ...]:
    if connection.dialect.name == "postgresql":
        return (
            "SET TRANSACTION READ ONLY",
            f"SET LOCAL statement_timeout = {STATEMENT_S * 1000}",
        )
    if connection.dialect.name == "mysql":
        limit = (
            f"max_statement_time = {STATEMENT_S}"
            if connection.dialect.is_mariadb
            else f"max_execution_time = {STATEMENT_S * 1000}"
        )
        return f"SET SESSION {limit}", "START TRANSACTION READ ONLY"
    return "PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF"


def _find_table(connection: Any, wanted: str) -> str:
    """The quoted name of a table or a view."""
    inspector = _sqlalchemy().inspect(connection)
    schema, dot, name = wanted.rpartition(".")

    def names(schema: str | None) -> list[str]:
        return [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]

    def quote(name: str) -> str:  # SQLAlchemy's would double a %, for parameters that we have not
        mark = str(connection.dialect.identifier_preparer.initial_quote)
        return mark + name.replace(mark, 2 * mark) + mark

    own = names(None)
    if wanted in own:
        return quote(wanted)
    if dot and schema in inspector.get_schema_names() and name in names(schema):
        return f"{quote(schema)}.{quote(name)}"
    near = difflib.get_close_matches(wanted, own, n=1, cutoff=0.6)
    hint = f" (is it {near[0]!r}?)" if near else ""
    said = (
        f"there is no table {wanted!r}{hint}" if wanted else "it is not said which table is meant"
    )
    found = f"there are {shortened(sorted(own))}" if own else "none can be seen with these rights"
    raise ConfigError(f"{said}; name one with --table NAME, or give --query FILE.sql: {found}")


def _read_query(path: Path) -> str:
    """One SELECT without comments."""
    if path.suffix.lower() != ".sql":
        raise ConfigError(
            f"--query {path.name}: give a file that ends in .sql and holds one SELECT"
        )
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_QUERY_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name}: not UTF-8 text; save it as UTF-8") from None
    if len(raw) > MAX_QUERY_BYTES:
        raise ConfigError(f"{path.name}: longer than {MAX_QUERY_BYTES >> 10} KiB; is it a query?")
    bare = _TOKEN.sub(lambda match: " " if match["comment"] else match[0], text)
    bare = bare.strip().removesuffix(";").strip()
    outside = _TOKEN.sub(" ", bare)
    if not re.match(r"(?i)(select|with)\b", bare) or ";" in outside:
        raise ConfigError(f"{path.name}: it must hold one SELECT and nothing else")
    return bare


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _ca_file() -> str | None:
    path = os.environ.get(CA_FILE)
    if path and not Path(path).is_file():
        raise ConfigError(f"{CA_FILE}: no file at {path}; name the database's CA certificate (PEM)")
    return path or None


def _explain(error: Exception) -> str:
    """What went wrong, in our words but for what is wrong with the person's own query."""
    original = getattr(error, "orig", None) or error
    first = original.args[0] if original.args else ""
    if isinstance(first, Mapping):  # PostgreSQL
        code, said = str(first.get("C", "")), str(first.get("M", ""))
    else:
        code = str(first) if isinstance(first, int) and not isinstance(original, OSError) else ""
        said = str(original.args[-1]) if original.args else ""
    if "CERTIFICATE_VERIFY" in said or isinstance(original.__cause__, ssl.SSLError):
        return (
            "its certificate cannot be verified; set GREYLAG_DB_CA to the CA's certificate (PEM) "
            "that its operator gives out"
        )
    if "SSL" in said:
        return (
            "it offers no TLS, so the password would be open on the way; have TLS set up there, or "
            "put ?tls=off behind the URL if that network is yours alone"
        )
    if code.startswith("28") or code in ("1045", "1698", "1044"):
        return f"it does not accept the name or the password; check {USER} and {PASSWORD}"
    if code in ("3D000", "1049"):
        return "there is no database of that name; correct the URL"
    if code in ("57014", "1969", "3024") or said == "interrupted":
        return (
            f"not done within {STATEMENT_S} s, so it was stopped; ask for less, or for a table "
            "prepared beforehand"
        )
    if code in ("25006", "1792") or "readonly" in said:
        return "the query would write; it must only read"
    own = code.startswith("42") or code == "0A000" or code in map(str, _MYSQL_QUERY_ERRORS)
    if own or re.match(r"(no such|near |ambiguous|incomplete input|unrecognized token)", said):
        line = "".join(c if c.isprintable() else " " for c in said)[:200]
        return f"the query is refused ({line}); correct it"
    if code in ("2003", "2006", "2013") or not code:
        return "it cannot be reached or read; check host, port and network, and that it is one"
    return f"it refuses the query (code {code}); try it there with the database's own program"
