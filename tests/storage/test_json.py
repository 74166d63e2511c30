"""`JSONStorage`: the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("filelock")

from memory_async.keys import Key
from memory_async.storage.json import JSONStorage
from memory_async.storage.json.files import safe_name
from memory_async.storage.protocol import Storage
from memory_async.testing import MakeStorage, StorageConformance
from memory_async.testing.runs import RunConformance
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade

FOLDERS = {"session": "sessions", "user": "profiles", "knowledge": "documents"}


class TestJSON(StorageConformance):
    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        self.path = tmp_path / "memory"

        def make(namespace: str = "default") -> Storage:
            return JSONStorage(self.path, namespace=namespace)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        space = FOLDERS.get(key.partition.space, "collections")
        folder = self.path / "default" / space / safe_name(key.partition.id)
        if key.kind == "turn":
            log = folder / "turns.jsonl"
            lines = log.read_text().splitlines(keepends=True)
            [number] = [n for n, line in enumerate(lines) if f'"run_id":"{key.id}"' in line]
            start = lines[number].index('"payload":') + len('"payload":')
            rubbish = "x" * (len(lines[number]) - start - 4)
            lines[number] = f'{lines[number][:start]}"{rubbish}"}}\n'
            log.write_text("".join(lines))
            return
        name = f"{key.kind}/{safe_name(key.id)}" if key.kind != "session" else "session"
        file = folder / f"{name}.json"
        text = file.read_text()
        file.write_text(text[: text.index('"payload":')] + '"payload":"rubbish"}')


@pytest.mark.no_cover
class TestRunsOnJSON(RunConformance):
    """Runs that wait for a human."""

    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return JSONStorage(tmp_path / "memory", namespace=namespace)

        return make


class TestJSONThroughTheFacade(ThroughTheFacade, TestJSON): ...


class TestRunsOnJSONThroughTheFacade(RunsThroughTheFacade, TestRunsOnJSON): ...
