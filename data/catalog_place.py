"""Where a workspace's catalog is: its own SQLite file, or the database that ``catalog`` in ``station.toml`` names."""

import os
import secrets
import tomllib

from sqlalchemy import URL, Engine, create_engine, event, insert, make_url, select
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError

from takeover.data.catalog_tables import meta
from takeover.data.workspace import Workspace

OWNER = "workspace"  # row of `meta`: whose episodes a server's catalog holds
ID_FILE = "catalog.id"


class CatalogError(RuntimeError):
    """The catalog cannot be opened or does not fit this version; says what to do."""


def server_of(workspace: Workspace) -> str:
    """URL of the database server that the station file names, "" for none. Raises `CatalogError` for a file that cannot be read."""
    path = workspace.station_path
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("catalog", "")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path} must say where the catalog is, but cannot be read: {error}") from error
    if not isinstance(found, str):
        raise CatalogError(f"{path}: catalog is {found!r}; allowed: the URL of a database server, or nothing")
    return found


def url_of(workspace: Workspace) -> str:
    """Raises `CatalogError`."""
    return server_of(workspace) or workspace.catalog_url


def has_catalog(workspace: Workspace) -> bool:
    """Whether there is something to open; a server is taken to be there. Raises `CatalogError`."""
    return bool(server_of(workspace)) or workspace.catalog_path.exists()


def engine_of(url: str) -> Engine:
    """An engine that is not connected yet; a server's is asked whether it is still there before each use. Raises `CatalogError`."""
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, NoSuchModuleError) as error:
        raise CatalogError(f"{shown(url)!r} names no database: {error}; for example postgresql+psycopg://user@host/database") from error
    except ModuleNotFoundError as error:
        raise CatalogError(f"{shown(url)} needs the Python package {error.name!r}: install it, or leave `catalog` out") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_settings)
    return engine


def shown(url: str | URL) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return str(url)


def claim(engine: Engine, workspace: Workspace) -> None:
    """A catalog on a server holds the episodes of one workspace, since files that are missing there are rows too many here.

    Raises `CatalogError` when it is another one's.
    """
    own = _id_of(workspace)
    for _ in range(2):
        with engine.connect() as connection:
            found = connection.execute(select(meta.c.value).where(meta.c.name == OWNER)).scalar()
        if found == own:
            return
        if found is not None:
            raise CatalogError(
                f"{shown(engine.url)} holds the catalog of another workspace than {workspace.path}; give each a database of its own"
            )
        try:
            with engine.begin() as connection:
                connection.execute(insert(meta), [{"name": OWNER, "value": own}])
        except IntegrityError:
            continue  # another process was faster: whose is it?


def _id_of(workspace: Workspace) -> int:
    path = workspace.path / ID_FILE
    made = path.with_name(f"{ID_FILE}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        if not path.exists():
            made.write_text(f"{secrets.randbits(62)}\n")
            try:
                os.link(made, path)  # whole, and only when no other process has made one
            except FileExistsError:
                pass
            finally:
                made.unlink()
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: {error}; it names this workspace to its database: bring it back from a copy") from error


def _sqlite_settings(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON", "cache_size=-32768"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
