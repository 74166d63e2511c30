"""What goes wrong with a Redis: one clear error each, soon, and no password in it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("redis", exc_type=ImportError)

import redis
import redis.asyncio

from memory_async.errors import (
    ConfigurationError,
    ConflictError,
    MemoryAsyncError,
    PayloadError,
    StorageError,
    StorageUnavailableError,
)
from memory_async.storage.protocol import ABSENT, Advance, Delete, Put
from memory_async.storage.redis import RedisStorage
from memory_async.storage.redis.wire import PoolWire
from memory_async.storage.url import open_storage
from memory_async.testing.material import append, changed, item, put, seqs, texts, unique
from tests.servers.redis import Server, free_port, shared, shared_cluster

SECRET = "s3cr%2Fet"
WORD = "s3cr/et"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


async def fails(storage: Any, error: type[MemoryAsyncError], *words: str) -> MemoryAsyncError:
    """One error within the connect timeout, with these words and without the password."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        await storage.apply(append("s"))
    assert time.monotonic() - started < 8
    shown = "".join(traceback.format_exception(caught.value)) + repr(storage) + str(caught.value)
    assert "s3cr" not in shown
    for word in words:
        assert word in str(caught.value)
    await storage.close()
    return caught.value


class TestConnecting:
    async def test_a_server_that_is_down(self) -> None:
        for cluster in (False, True):
            url = f"redis://:{SECRET}@127.0.0.1:{free_port()}"
            error = await fails(
                RedisStorage(url, cluster=cluster), StorageUnavailableError, "no connection"
            )
            assert error.__cause__ is not None

    async def test_a_host_that_does_not_exist(self) -> None:
        await fails(RedisStorage("redis://no.such.host.invalid"), StorageUnavailableError)

    async def test_a_server_that_never_answers(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            port = silent.getsockname()[1]
            url = f"redis://:{SECRET}@127.0.0.1:{port}"
            for cluster in (False, True):
                storage = RedisStorage(url, cluster=cluster, connect_timeout=0.2, timeout=0.2)
                await fails(storage, StorageUnavailableError)

    async def test_a_wrong_password(self, server: Server) -> None:
        with server.client() as client:
            client.config_set("requirepass", "right")
        for url, word in (
            (f"redis://:{SECRET}@127.0.0.1:{server.port}", "login"),
            (f"redis://ann:{SECRET}@127.0.0.1:{server.port}", "login"),
            (server.url, "password"),
        ):
            await fails(RedisStorage(url), StorageUnavailableError, word)
        async with RedisStorage(f"redis://:right@127.0.0.1:{server.port}") as storage:
            await storage.apply(append("s"))

    async def test_no_rights(self, server: Server) -> None:
        with server.client() as client:
            for name, rights in {
                "none": ("~*", "+ping"),
                "reader": ("~*", "+@all", "-@write"),
                "partly": ("~*", "+@all", "-ltrim"),
                "elsewhere": ("~other:*", "+@all"),
            }.items():
                client.execute_command("ACL SETUSER", name, "on", f">{WORD}", *rights)
                url = f"redis://{name}:{SECRET}@127.0.0.1:{server.port}"
                await fails(RedisStorage(url), StorageError, "does not let this user")
            assert client.keys("*") == []

    @pytest.mark.parametrize(
        "url",
        [
            f"http://:{WORD}@host",
            f"redis://:{WORD}@host",
            "redis://:s3cr#et@host",
            "redis://:s3cr?et@host",
            "redis://:1/s3cr@host",
            "redis://:s3cret@host:port",
            "redis://:s3cret@host:99999",
            "redis://:s3cret@host/name",
            "redis://:s3cret@host?ttl=5",
        ],
    )
    def test_a_wrong_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RedisStorage(url)
        assert "s3cr" not in "".join(traceback.format_exception(caught.value))

    async def test_a_url_of_the_other_kind(self) -> None:
        node = shared_cluster().nodes[0]
        await fails(RedisStorage(node.url, namespace=unique()), ConfigurationError, "cluster=True")
        await fails(RedisStorage(shared().url, cluster=True), ConfigurationError, "is no Redis Cl")

    async def test_a_url_without_an_option_of_that_name(self) -> None:
        with pytest.raises(ConfigurationError, match="no option"):
            open_storage("redis://localhost?colour=red")
        with pytest.raises(ConfigurationError, match="option"):
            await RedisStorage(shared().url, colour="red").open()

    def test_what_is_no_client(self) -> None:
        for wrong in (redis.Redis(), None, 5):
            with pytest.raises(ConfigurationError, match=r"redis\.asyncio"):
                RedisStorage(wrong)  # type: ignore[arg-type]

    def test_without_the_package(self) -> None:
        script = (
            "import sys; sys.modules['redis'] = None\n"
            "from memory_async import open_storage\n"
            "open_storage('redis://:s3cret@localhost')"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        last = done.stderr.strip().splitlines()[-1]
        assert "ConfigurationError" in last
        assert "memory-async[redis]" in last


class TestRefusing:
    async def test_out_of_memory(self, server: Server) -> None:
        async with RedisStorage(server.url) as storage:
            await storage.apply(append("s"))
            with server.client() as client:
                client.config_set("maxmemory", "1")
                with pytest.raises(StorageUnavailableError, match="memory"):
                    await storage.apply(append("s"))
                assert seqs(await storage.history("s")) == [1]
                client.config_set("maxmemory", "0")
            await storage.apply(append("s"))

    async def test_a_replica(self, server: Server) -> None:
        async with RedisStorage(server.url) as storage:
            await storage.apply(append("s"))
            with server.client() as client:
                client.config_set("replica-serve-stale-data", "yes")
                client.replicaof("127.0.0.1", free_port())
                with pytest.raises(StorageUnavailableError, match="replica"):
                    await storage.apply(append("s"))
                assert seqs(await storage.history("s")) == [1]

    async def test_a_payload_too_large_is_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert RedisStorage.max_payload_bytes < 512 << 20
        monkeypatch.setattr(RedisStorage, "max_payload_bytes", 1000)
        async with RedisStorage(shared().url, namespace=unique()) as storage:
            with pytest.raises(PayloadError, match="1000"):
                await storage.apply(append("s", "x" * 2000))
            assert await storage.history("s") == []

    async def test_scripts_it_has_forgotten_are_sent_again(self) -> None:
        async with RedisStorage(shared().url, namespace=unique()) as storage:
            await storage.apply(append("s"))
            with shared().client() as client:
                client.script_flush()
            answers = await asyncio.gather(*[storage.apply(append("s")) for _ in range(20)])
            assert len(answers) == 20
            assert seqs(await storage.history("s")) == list(range(1, 22))


class TestLosing:
    """An answer that never comes: what was sent may have been carried out."""

    @pytest.fixture
    def lose(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Set ``lose[0]`` to how many answers are to be lost."""
        left = [0]
        exchange = PoolWire._exchange

        async def lost(wire: PoolWire, commands: Any, answers: list[Any]) -> None:
            await exchange(wire, commands, answers)
            if left[0]:
                left[0] -= 1
                answers.clear()
                raise redis.ConnectionError("lost")

        monkeypatch.setattr(PoolWire, "_exchange", lost)
        return left

    async def test_a_turn_is_stored_once(self, lose: list[int]) -> None:
        async with RedisStorage(shared().url, namespace=unique()) as storage:
            await storage.apply(append("s", "one"))
            lose[0] = 1
            [result] = await storage.apply(append("s", "two"))
            assert result.turn is not None
            assert result.turn.seq == 2
            assert texts(await storage.history("s")) == ["one", "two"]

    async def test_what_must_not_be_repeated_is_not(self, lose: list[int]) -> None:
        async with RedisStorage(shared().url, namespace=unique()) as storage:
            await storage.apply(append("s", due=("job",)))
            record = item("c", "i")
            await put(storage, record)
            newer = changed(record)
            for write in (
                Advance("s", "job", 0, 1, "value"),
                Put(newer, record.version),
                Delete(record.key, newer.version),
            ):
                lose[0] = 1
                with pytest.raises(StorageUnavailableError) as caught:
                    await storage.apply(write)
                assert not isinstance(caught.value, ConflictError)
            assert await storage.get(record.key) is None  # it was carried out

    async def test_a_create_is_repeated(self, lose: list[int]) -> None:
        async with RedisStorage(shared().url, namespace=unique()) as storage:
            record = item("c", "i")
            lose[0] = 1
            await storage.apply(Put(record, ABSENT))
            assert await storage.get(record.key) == record


class TestClients:
    async def test_a_given_client_is_not_closed(self) -> None:
        for decode in (False, True):
            client = redis.asyncio.Redis(port=shared().port, decode_responses=decode)
            async with RedisStorage(client, namespace=unique()) as storage:
                await asyncio.gather(*[storage.apply(append("s")) for _ in range(20)])
                assert len(await storage.history("s")) == 20
            assert await client.ping()
            assert await client.connection_pool.get_connection() is not None
            await client.aclose()

    async def test_a_small_pool_is_enough(self) -> None:
        pool = redis.asyncio.ConnectionPool(port=shared().port, max_connections=1)
        client = redis.asyncio.Redis(connection_pool=pool)
        async with RedisStorage(client, namespace=unique()) as storage:
            await asyncio.gather(*[storage.apply(append("s")) for _ in range(50)])
            assert len(await storage.history("s")) == 50
        await pool.aclose()

    async def test_a_given_cluster_is_not_closed(self) -> None:
        client = redis.asyncio.RedisCluster(host="127.0.0.1", port=shared_cluster().nodes[0].port)
        async with RedisStorage(client, namespace=unique()) as storage:
            await asyncio.gather(*[storage.apply(append(f"s{n}")) for n in range(20)])
            assert len(await storage.find("session")) == 20
        await client.set("key", "value")
        await client.aclose()

    async def test_a_client_of_another_loop(self) -> None:
        client = redis.asyncio.Redis(port=shared().port)
        await client.ping()

        def elsewhere() -> None:
            with pytest.raises(ConfigurationError, match="loop"):
                asyncio.run(RedisStorage(client).open())

        await asyncio.to_thread(elsewhere)
        await client.aclose()

    async def test_a_server_that_falls_silent(self) -> None:
        server = Server()
        async with RedisStorage(server.url, timeout=0.2, connect_timeout=0.2) as storage:
            await storage.apply(append("s"))
            await asyncio.gather(*(storage.history("s") for _ in range(4)))
            with server.client() as client:
                client.client_pause(60_000)
            for _ in range(2):  # with the connections there are, and with new ones
                async with asyncio.timeout(20):
                    calls = [storage.history("s") for _ in range(4)]
                    found = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(each) for each in found] == [StorageUnavailableError] * 4
        server.close()

    async def test_a_restarted_server_is_found_again(self) -> None:
        server = Server("--appendonly", "yes", "--appendfsync", "always")
        async with RedisStorage(server.url) as storage:
            await storage.apply(append("s"))
            server.kill()
            with pytest.raises(StorageUnavailableError):
                await storage.apply(append("s"))
            server.start()
            await storage.apply(append("s"))
            assert seqs(await storage.history("s")) == [1, 2]
        server.close()
