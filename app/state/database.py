"""Opens service.db, or makes it, and hands out transactions on it; the driver's errors become ours here."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app.state import tables
from corpus.errors import StateError


class Database:
    """An open service.db without a word on what it holds: what is kept there derives from this."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`, or make it where there is none.

        Raises: StateError where the file is damaged, is not ours, or was written by another version.
        """
        self.path = path
        if not path.exists():
            _create(path)
        elif path.stat().st_size == 0:
            # Ours are put in place complete, so an empty file is one that lost its content.
            raise StateError(str(path), "it is empty; restore it from a backup, or remove it to begin without conversations")
        self._engine = _engine(path)
        try:
            self._verify()
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def check(self) -> None:
        """Take and give back the write lock, waiting half a second at most.

        Raises: StateError where the database cannot be written to.
        """
        with self._translated(), self._driver_connection() as connection:
            connection.execute("PRAGMA busy_timeout = 500")
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            finally:
                connection.execute("PRAGMA busy_timeout = 5000")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StateError(str(self.path), _reason(error)) from error

    @contextmanager
    def _driver_connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for what must stand outside of a transaction, which SQLAlchemy always begins."""
        pooled = self._engine.raw_connection()
        try:
            yield cast("sqlite3.Connection", pooled.driver_connection)
        finally:
            pooled.close()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        # The write lock first: a transaction that reads before it writes could not be retried otherwise.
        engine = self._engine.execution_options(archivist_begin="BEGIN IMMEDIATE")
        with self._translated(), engine.begin() as connection:
            yield connection

    def _verify(self) -> None:
        with self._read() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if found != "ok":
            raise StateError(str(self.path), f"it is damaged ({str(found)[:120]}); restore it from a backup")
        if application != tables.APPLICATION_ID:
            raise StateError(str(self.path), "it is not a database of Archivist; move it away")
        if version != tables.SCHEMA_VERSION:
            begin_anew = ", or move the file away to begin without conversations" if version < tables.SCHEMA_VERSION else ""
            raise StateError(
                str(self.path),
                f"its schema version is {version}, this program knows {tables.SCHEMA_VERSION}; "
                f"use the program that wrote it{begin_anew}",
            )


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing itself, _on_begin does
        for pragma in (
            "busy_timeout = 5000",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("archivist_begin", "BEGIN"))

    return engine


def _create(path: Path) -> None:
    """Write a complete database beside `path` and put it in place, so that `path` is never half made."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(unfinished)))
        try:
            with engine.begin() as connection:
                tables.metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA application_id = {tables.APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {tables.SCHEMA_VERSION}")
        finally:
            engine.dispose()
        unfinished.replace(path)
    except (OSError, SQLAlchemyError) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise StateError(str(path), f"it could not be made ({_reason(error)}); check the folder's permissions") from error


def _reason(error: BaseException) -> str:
    """The driver's own words, without the statement and its values."""
    origin = getattr(error, "orig", None) or error
    return str(origin) if isinstance(origin, sqlite3.Error | OSError) else type(origin).__name__
