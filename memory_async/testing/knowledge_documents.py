"""Documents of a knowledge base: added once, replaced whole, listed, deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memory_async.errors import MemoryAsyncError, StorageUnavailableError
from memory_async.records import Document, UserProfile
from memory_async.storage.protocol import Put, Storage
from memory_async.testing.around import Recording
from memory_async.testing.knowledge_suite import (
    KnowledgeSuite,
    Meaning,
    book,
    chunks,
    in_base,
    is_whole,
)
from memory_async.testing.material import append, changed, item, put, texts, unique

HOURS = "The office opens at nine.\n\nIt closes at five."

NO_TEXT: Any = 7

BAD: dict[str, Callable[[Any, Path], Any]] = {
    "empty": lambda k, f: k.add(""),
    "blank": lambda k, f: k.add(" \n\t "),
    "surrogate": lambda k, f: k.add("a\ud800b"),
    "bytes": lambda k, f: k.add(b"text"),
    "none": lambda k, f: k.add(None),
    "nan": lambda k, f: k.add("text", metadata={"n": float("nan")}),
    "metadata": lambda k, f: k.add("text", metadata=[1]),
    "object": lambda k, f: k.add("text", metadata={"o": object()}),
    "name": lambda k, f: k.add("text", name=7),
    "description": lambda k, f: k.add("text", description="\ud800"),
    "empty source": lambda k, f: k.add("text", source=""),
    "long source": lambda k, f: k.add("text", source="x" * 513),
    "long id": lambda k, f: k.add(Document(document_id="x" * 513, content="text")),
    "no content": lambda k, f: k.add(Document(name="empty")),
    "content": lambda k, f: k.add(Document(content=NO_TEXT)),
    "elsewhere": lambda k, f: k.add(Document(knowledge_base_id="other", content="text")),
    "missing": lambda k, f: k.add(f / "missing.txt"),
    "folder": lambda k, f: k.add(f),
    "binary": lambda k, f: k.add(f / "binary.png"),
    "latin-1": lambda k, f: k.add(f / "latin.txt"),
    "pdf": lambda k, f: k.add(f / "paper.pdf"),
    "blank file": lambda k, f: k.add(f / "blank.txt"),
    "many in one": lambda k, f: k.add_many("text"),
    "many of none": lambda k, f: k.add_many(None),
    "progress": lambda k, f: k.add_many(["text"], on_progress=7),
    "get": lambda k, f: k.get(""),
    "delete": lambda k, f: k.delete("x" * 513),
    "status": lambda k, f: k.list(status="done"),
    "limit": lambda k, f: k.list(limit=-1),
    "before": lambda k, f: k.list(before="x"),
    "count": lambda k, f: k.count(metadata={1: 2}),
    "query": lambda k, f: k.search(None),
    "hits": lambda k, f: k.search("text", 1.5),
}


class DocumentConformance(KnowledgeSuite):
    """What becomes of a document."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Files that are no texts."""
        (tmp_path / "binary.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
        (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
        (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7 all of it ASCII")
        (tmp_path / "blank.txt").write_text("\ufeff\n", encoding="utf-8")
        return tmp_path

    async def test_a_text_is_added(self, storage: Storage) -> None:
        id = unique("base")
        knowledge = self.knowledge(storage, id)
        given: dict[str, Any] = {
            "name": "Hours",
            "source": "intranet",
            "metadata": {"tags": ["a", 1, None]},
        }
        added = await knowledge.add(HOURS, description="When to come", **given)
        assert await knowledge.get(added.document_id) == await knowledge.get(added) == added
        assert [added] == await knowledge.list()
        assert {name: getattr(added, name) for name in given} == given
        assert (added.description, added.type) == ("When to come", "text/plain")
        assert (added.size, added.chunk_count) == (len(HOURS), 1)
        assert added.hash == hashlib.sha256(HOURS.encode()).hexdigest()
        assert added.updated_at >= added.created_at
        await is_whole(storage, id, added, HOURS)

    async def test_the_same_again_changes_nothing(self, storage: Storage) -> None:
        id, recording = unique("base"), Recording(storage)
        knowledge = self.knowledge(recording, id)
        first = await knowledge.add(HOURS, source="a", metadata={"n": 1})
        second = await knowledge.add(HOURS)
        assert first.document_id != second.document_id
        del recording.applied[:]
        assert await knowledge.add(HOURS, source="a") == first
        assert await knowledge.add(HOURS, source="a", metadata={"n": 1}) == first
        assert await knowledge.add(HOURS) == second
        assert await knowledge.add(Document(content=HOURS)) == second
        assert recording.applied == []

    async def test_another_description_leaves_the_passages(self, storage: Storage) -> None:
        id = unique("base")
        knowledge = self.knowledge(storage, id)
        first = await knowledge.add(HOURS, name="Hours", metadata={"n": 1})
        before = await chunks(storage, id)
        again = await knowledge.add(HOURS, metadata={}, description="When to come")
        assert (again.name, again.metadata) == ("Hours", {})
        assert (again.description, again.created_at) == ("When to come", first.created_at)
        assert await knowledge.list() == [again]
        assert await chunks(storage, id) == before

    @pytest.mark.parametrize("embed", [None, Meaning()], ids=["words", "vectors"])
    async def test_another_content_replaces_the_old(self, storage: Storage, embed: Any) -> None:
        id, recording = unique("base"), Recording(storage)
        knowledge = self.knowledge(recording, id, embed=embed)
        first = await knowledge.add(HOURS, source="a", name="Hours")
        del recording.applied[:]
        second = await knowledge.add("Closed.", source="a")
        assert (second.document_id, second.name) == (first.document_id, "Hours")
        assert (second.created_at, second.size) == (first.created_at, 7)
        assert await knowledge.list() == [second]
        await is_whole(storage, id, second, "Closed.")
        if embed is None:
            assert len(recording.applied) == 1

    async def test_a_long_text_is_added_and_replaced(self, storage: Storage) -> None:
        id, recording = unique("base"), Recording(storage)
        knowledge = self.knowledge(recording, id, passage_size=40)
        for text in (book("tea"), book("coffee"), "short", book("tea")):
            document = await knowledge.add(text, source="book")
            await is_whole(storage, id, document, text)
        assert max(len(writes) for writes in recording.applied) < 200

    async def test_documents_bring_their_own(self, storage: Storage) -> None:
        knowledge = self.knowledge(storage, id := unique("base"))
        given = Document(document_id="d", content="One.", name="n", type="text/markdown")
        first = await knowledge.add(given, name="given with the call")
        assert (first.document_id, first.knowledge_base_id) == ("d", id)
        assert (first.name, first.type) == ("given with the call", "text/markdown")
        second = await knowledge.add(Document(document_id="d", content="Two.", source="s"))
        assert [second] == await knowledge.list(source="s") == await knowledge.list()
        await is_whole(storage, id, second, "Two.")

    async def test_files_are_read(self, storage: Storage, tmp_path: Path) -> None:
        knowledge = self.knowledge(storage, unique("base"))
        file = tmp_path / "caf\u00e9.md"
        file.write_text("\ufeffOpen \U0001f600\r\n\r\n", encoding="utf-8", newline="")
        document = await knowledge.add(file)
        assert (document.name, document.source) == (file.name, str(file))
        assert document.type == "text/markdown"
        renamed = await knowledge.add(file, name="Opening hours")
        assert renamed.generation == document.generation
        file.write_text("Closed.", encoding="utf-8")
        replaced = await knowledge.add(file)
        assert (replaced.document_id, replaced.name) == (document.document_id, "Opening hours")
        assert await knowledge.count() == 1
        assert [hit.text for hit in await knowledge.search("closed open")] == ["Closed."]

    async def test_what_cannot_be_is_refused(self, storage: Storage, folder: Path) -> None:
        recording = Recording(storage)
        knowledge = self.knowledge(recording, unique("base"))
        for name, bad in BAD.items():
            with pytest.raises(MemoryAsyncError) as caught:
                await bad(knowledge, folder)
            assert isinstance(caught.value, ValueError), name
            assert recording.applied == [], name

    async def test_many_are_added_one_after_the_other(self, storage: Storage, folder: Path) -> None:
        knowledge = self.knowledge(storage, unique("base"))
        seen = []

        def on_progress(done: int, total: int, document: Document) -> None:
            seen.append((done, total, document.size))

        bad = folder / "binary.png"
        with pytest.raises(MemoryAsyncError, match="binary") as caught:
            await knowledge.add_many(["One.", "Three.", bad, "Two."], on_progress=on_progress)
        assert "number 3 of 4" in caught.value.__notes__[0]
        added = await knowledge.add_many(iter(["One.", "Two."]))
        assert seen == [(1, 4, 4), (2, 4, 6)]
        assert [each.size for each in added] == [4, 4]
        assert await knowledge.count() == 3

    async def test_listing_pages_and_filters(self, storage: Storage) -> None:
        knowledge = self.knowledge(storage, unique("base"))
        added = [
            await knowledge.add(f"Text {n}", source=f"s{n}", metadata={"even": n % 2 == 0, "n": n})
            for n in range(7)
        ]
        for metadata, wanted in (({}, added), ({"even": True}, added[::2])):
            pages: list[Document] = []
            while page := await knowledge.list(
                metadata=metadata, limit=3, before=pages[-1] if pages else None
            ):
                assert len(page) <= 3
                pages += page
            assert pages == sorted(
                wanted, key=lambda each: (each.created_at, each.document_id), reverse=True
            )
            assert await knowledge.count(metadata=metadata) == len(wanted)
        assert await knowledge.list(source="s3") == [added[3]]
        assert await knowledge.list(source="s3", metadata={"n": 4}) == []
        assert await knowledge.list(limit=0) == await knowledge.list(metadata={"n": 1}, limit=0)
        assert await knowledge.count(status="ready") == 7
        assert await knowledge.list(status="pending") == await knowledge.list(source="s") == []
        assert await knowledge.get("nothing") is None

    async def test_deleting_and_clearing_leave_everything_else(self, storage: Storage) -> None:
        id, other, user = unique("base"), unique("base"), unique("user")
        knowledge = self.knowledge(storage, id, embed=Meaning())
        elsewhere = self.knowledge(storage, other)
        await storage.apply(append(id, user_id=user))  # a session of the same name
        await put(storage, UserProfile(user_id=id), item(in_base(other), "a"))
        kept = await elsewhere.add(HOURS)
        first, second = await knowledge.add(HOURS), await knowledge.add("Two.", source="b")
        assert await knowledge.delete(first)
        assert not await knowledge.delete(first.document_id)
        assert await knowledge.list() == [second]
        await is_whole(storage, id, second, "Two.")
        await knowledge.clear()
        assert await knowledge.list() == []
        assert await chunks(storage, id) == []
        assert await storage.find("item", in_base(id)) == []
        assert await elsewhere.list() == [kept]
        assert texts(await storage.history(id)) == ["hello"]
        assert len(await storage.find("item", in_base(other))) == 1
        assert len(await chunks(storage, other)) == 1
        assert (await knowledge.add(HOURS)).document_id == first.document_id

    async def test_a_closed_one_says_so(self, storage: Storage) -> None:
        knowledge = self.knowledge(storage, unique("base"))
        await knowledge.add("text")
        for _ in "ab":
            await knowledge.close()
        for call in (
            lambda: knowledge.add("more"),
            lambda: knowledge.add_many([]),
            knowledge.list,
            knowledge.count,
            lambda: knowledge.search("text"),
            knowledge.clear,
        ):
            with pytest.raises(StorageUnavailableError, match="closed"):
                await call()
        await put(storage, item(unique(), "still open"))

    async def test_a_document_of_another_version_keeps_its_fields(self, storage: Storage) -> None:
        knowledge = self.knowledge(storage, unique("base"))
        document = await knowledge.add("One.", source="s")
        newer = changed(document, extra={"colour": "red"})
        await storage.apply(Put(newer, document.version))
        assert (await knowledge.add("Two.", source="s")).extra == {"colour": "red"}
