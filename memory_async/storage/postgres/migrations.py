"""The tables, functions and views: numbered scripts, applied in order, by one process at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

from memory_async.errors import ConfigurationError, SchemaTooNewError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

# Asked of the catalog, whose rows are those of the moment; to_regclass() may answer from a cache.
_FACTS = """
SELECT current_setting('server_encoding'), current_setting('default_transaction_isolation'),
       EXISTS (SELECT 1 FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = 'schema_version')"""
_VERSION = "SELECT version FROM memory_async.schema_version"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('memory_async schema', 0))"


def check_name(schema: str) -> str:
    if not isinstance(schema, str) or not NAME.fullmatch(schema):
        raise ConfigurationError(
            f"schema= is a name of up to 63 letters, digits and underscores, not {schema!r}"
        )
    return schema


@lru_cache  # the statements are few
def within(schema: str, sql: str) -> str:
    """``sql`` for the schema of this name."""
    return sql.replace("memory_async.", f'"{schema}".')


def migrations() -> Iterator[tuple[int, str]]:
    folder = files("memory_async.storage.postgres") / "schema"
    for script in sorted(folder.iterdir(), key=lambda each: each.name):
        if match := re.match(r"(\d{4})_\w+\.sql$", script.name):
            yield int(match[1]), script.read_text(encoding="utf-8")


async def bring_up_to_date(connection: Any, schema: str, where: str) -> None:
    """Create or migrate what is missing. Where nothing is, no right to create is needed."""
    encoding, isolation, exists = await connection.fetchrow(_FACTS, schema)
    if encoding != "UTF8":
        raise ConfigurationError(f"{where} is a database in {encoding}; memory_async needs UTF8")
    if isolation == "repeatable read":
        raise ConfigurationError(
            f"{where} begins transactions as {isolation}, which cannot see what others commit "
            "meanwhile: set default_transaction_isolation to read committed for this role"
        )
    known = list(migrations())
    if exists and await _version(connection, schema, known[-1][0], where) == known[-1][0]:
        return
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_LOCK)
        version = 0
        if (await connection.fetchrow(_FACTS, schema))[2]:
            version = await _version(connection, schema, known[-1][0], where)
        else:
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        for number, script in known:
            if number > version:
                await connection.execute(within(schema, script))
        await connection.execute(within(schema, "DELETE FROM memory_async.schema_version"))
        await connection.execute(
            within(schema, "INSERT INTO memory_async.schema_version VALUES ($1)"), known[-1][0]
        )


async def _version(connection: Any, schema: str, newest: int, where: str) -> int:
    version: int = await connection.fetchval(within(schema, _VERSION))
    if version > newest:
        raise SchemaTooNewError(
            f"{where} has schema {version}, this memory_async knows {newest}: upgrade memory_async"
        )
    return version
