"""A Redis that will not just now, and one behind TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("redis", exc_type=ImportError)

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from memory_async.errors import StorageUnavailableError
from memory_async.storage.redis import RedisStorage
from memory_async.storage.url import open_storage
from memory_async.testing.material import append, fill, item, put, seqs, unique
from tests.servers import need
from tests.servers.redis import Cluster, Server, shared
from tests.servers.wire import wire_to


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("--appendonly", "yes", "--aof-use-rdb-preamble", "no")
    yield made
    made.close()


async def test_a_server_that_still_loads(server: Server) -> None:
    async with RedisStorage(server.url) as storage:
        await fill(storage, "s", 3)
        with server.client() as client:  # every thousand it looks whether somebody wants something
            client.eval("for _ = 1, 50000 do redis.call('SET', 'key', 'value') end", 0)
        server.kill()
        with pytest.raises(StorageUnavailableError):
            await storage.history("s")

        def loads() -> bool:
            with server.client(retry=Retry(NoBackoff(), 0)) as client:
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    return True
                except redis.ConnectionError:
                    return False
                raise AssertionError("it was too fast")

        server.start("--key-load-delay", "50", until=loads)  # µs
        for call in (lambda: storage.history("s"), lambda: storage.apply(append("s"))):
            with pytest.raises(StorageUnavailableError, match="still loading"):
                await call()
        fresh = RedisStorage(server.url)
        with pytest.raises(StorageUnavailableError, match="still loading"):
            await fresh.open()
        await fresh.close()
        server.kill()
        server.start()
        assert seqs(await storage.history("s")) == [1, 2, 3]


async def test_somebody_s_script_that_takes_too_long(server: Server) -> None:
    async with RedisStorage(server.url) as storage:
        await fill(storage, "s", 2)
        with server.client() as client, server.client() as other:
            client.config_set("lua-time-limit", "10")

            def run() -> None:
                with pytest.raises(redis.ResponseError, match="killed"):
                    other.eval("while true do end", 0)

            busy = threading.Thread(target=run)
            busy.start()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    client.get("key")
                except redis.ResponseError:
                    break
            for call in (lambda: storage.history("s"), lambda: storage.apply(append("s"))):
                with pytest.raises(StorageUnavailableError, match="busy with somebody's script"):
                    await call()
            client.script_kill()
            busy.join()
            assert seqs(await storage.history("s")) == [1, 2]


async def test_a_node_of_a_cluster_that_is_full() -> None:
    """Nothing half-written: where the index is full the record is not written either."""
    cluster = Cluster()
    try:
        async with RedisStorage(cluster.nodes[0].url, cluster=True) as storage:
            for node in cluster.nodes:
                with node.client() as client:
                    client.config_set("maxmemory", "1")
                puts = [put(storage, item(f"c{n}", "i")) for n in range(30)]
                answers = await asyncio.gather(*puts, return_exceptions=True)
                refused = [each for each in answers if each is not None]
                assert refused
                assert all("memory" in str(each) for each in refused)
                assert {type(each) for each in refused} == {StorageUnavailableError}
            for node in cluster.nodes:
                with node.client() as client:
                    client.config_set("maxmemory", "0")
            found = await storage.find("item")
            kept = [await storage.get(item(f"c{n}", "i").key) for n in range(30)]
            assert sorted(map(repr, found)) == sorted(repr(each) for each in kept if each)
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that names 127.0.0.1, and signs itself; the key is beside it."""
    if shutil.which("openssl") is None:
        need("no openssl")
    made = tmp_path_factory.mktemp("tls") / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=redis"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(made), "-keyout", str(made.with_name("key.pem"))),
        ],
        check=True,
        capture_output=True,
    )
    return made


async def test_tls(certificate: Path) -> None:
    """In front of the server, which may have been built without."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    namespace = unique()
    async with wire_to(shared().port, tls=tls) as wire:
        url = f"rediss://:s3cret@127.0.0.1:{wire.port}"
        known = f"ssl_ca_certs={certificate}&namespace={namespace}"
        async with open_storage(f"rediss://127.0.0.1:{wire.port}?{known}") as storage:
            await fill(storage, "s", 3)
            assert len(await storage.history("s")) == 3
        for wrong in (
            RedisStorage(url),  # whom nobody vouches for
            RedisStorage(f"redis://:s3cret@127.0.0.1:{wire.port}", connect_timeout=0.5),
            RedisStorage(f"rediss://:s3cret@127.0.0.1:{shared().port}", connect_timeout=0.5),
        ):
            started = time.monotonic()
            with pytest.raises(StorageUnavailableError) as caught:
                await wrong.open()
            assert time.monotonic() - started < 5
            assert "s3cret" not in str(caught.value)
            await wrong.close()
