"""The suite every driver has to pass, for drivers of your own.

Needs pytest, pytest-asyncio and hypothesis, which memory_async itself does not.
"""

from __future__ import annotations

from pkgutil import iter_modules

import pytest

# Before they are imported, so that a failing assert shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{each.name}" for each in iter_modules(__path__)))

from memory_async.testing.batches import BatchConformance  # noqa: E402
from memory_async.testing.corruption import CorruptionConformance  # noqa: E402
from memory_async.testing.expect import ExpectConformance  # noqa: E402
from memory_async.testing.finding import FindConformance  # noqa: E402
from memory_async.testing.jobs import JobConformance  # noqa: E402
from memory_async.testing.knowledge import KnowledgeConformance  # noqa: E402
from memory_async.testing.log import LogConformance  # noqa: E402
from memory_async.testing.names import NameConformance  # noqa: E402
from memory_async.testing.namespaces import NamespaceConformance  # noqa: E402
from memory_async.testing.payloads import PayloadConformance  # noqa: E402
from memory_async.testing.reading import ReadingConformance  # noqa: E402
from memory_async.testing.records import RecordConformance  # noqa: E402
from memory_async.testing.removing import RemovalConformance  # noqa: E402
from memory_async.testing.robustness import RobustnessConformance  # noqa: E402
from memory_async.testing.runs import RunConformance  # noqa: E402
from memory_async.testing.searching import SearchConformance  # noqa: E402
from memory_async.testing.sharing import SharingConformance  # noqa: E402
from memory_async.testing.suite import PROMISES, MakeStorage  # noqa: E402

__all__ = [
    "PROMISES",
    "KnowledgeConformance",
    "MakeStorage",
    "RunConformance",
    "StorageConformance",
]


class StorageConformance(
    LogConformance,
    ReadingConformance,
    JobConformance,
    RecordConformance,
    RemovalConformance,
    BatchConformance,
    ExpectConformance,
    FindConformance,
    PayloadConformance,
    NameConformance,
    NamespaceConformance,
    CorruptionConformance,
    RobustnessConformance,
    SharingConformance,
    SearchConformance,
):
    """Everything `memory_async.storage.protocol` promises, as tests. Subclass it::

        import pytest
        from memory_async.testing import StorageConformance

        class TestMyStorage(StorageConformance):
            @pytest.fixture
            def storages(self, tmp_path):
                def make(namespace="default"):
                    return MyStorage(tmp_path / "memory.db", namespace=namespace)

                return make

    ``make`` returns a new storage object over the same data each time; the suite closes it. The
    data may hold what earlier tests left: every test uses ids, or a namespace, of its own.

    Also to be set where it applies:

    - ``shared = False``: each object has data of its own (a private store in memory).
    - ``one_loop = False``: an object may be used from several event loops.
    - ``thorough = False``, on a slow server: of many values of a kind only some are tried.
    - ``async def damage(self, storage, key)``: overwrites the payload stored at ``key`` with
      rubbish behind the storage's back; without it the tests of corrupt rows are skipped.

    What `Storage.unpromised` names (`PROMISES` lists what it may) is skipped, and nothing else.
    """
