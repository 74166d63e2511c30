"""`KnowledgeBase`: what an agent may look up, kept beside what it remembers."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeAlias, get_args

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.jsontext import dump_json
from memory_async.keys import Cursor, Key, Partition, check_id, compound_prefix
from memory_async.knowledge.adding import Adding
from memory_async.knowledge.finding import KnowledgeHit, Question, documents, fits, search
from memory_async.knowledge.reading import Content, Named, read
from memory_async.records import Document, DocumentStatus
from memory_async.storage.protocol import Delete, Drop, Storage
from memory_async.storage.url import open_storage
from memory_async.vectors import Embed, check_embed, embed_texts
from memory_async.words import require_stemmer

__all__ = ["KnowledgeBase", "OnProgress"]

OnProgress: TypeAlias = Callable[[int, int, Document], Awaitable[None] | None]
"""Called with how many are done, of how many, and the document just added; may be async."""

MOST_CHARACTERS = 100_000


class KnowledgeBase:
    """Documents of one knowledge base, in passages that are found by `search`.

    ``storage`` is a URL, which is closed with the knowledge base, or a storage object, e.g. that of
    a `Memory`; no user owns what is in here. ``embed`` is an async function from texts to vectors:
    with it passages are found by meaning, too. ``passage_size`` is in characters, and for what is
    added from now on::

        async with KnowledgeBase("sqlite:///chat.db", "handbook") as knowledge:
            await knowledge.add(Path("handbook.md"))
            [best, *_] = await knowledge.search("When is the office open?")
    """

    def __init__(
        self,
        storage: str | Storage,
        knowledge_base_id: str,
        *,
        embed: Embed | None = None,
        passage_size: int = 1_000,
    ) -> None:
        self.knowledge_base_id = check_id("knowledge_base_id", knowledge_base_id)
        check_embed(embed)
        require_stemmer()
        _check_number("passage_size", passage_size)
        if not 1 <= passage_size <= MOST_CHARACTERS:
            raise ConfigurationError(
                f"passage_size is from 1 to {MOST_CHARACTERS} characters, not {passage_size}"
            )
        self._embed = embed
        self._passage_size = passage_size
        self._partition = Partition("knowledge", knowledge_base_id)
        self._closed = False
        self._owned = AsyncExitStack()
        if not isinstance(storage, Storage):
            storage = open_storage(storage)
            self._owned.push_async_callback(storage.close)
        self._storage = storage

    # --- writing ---

    async def add(
        self,
        content: Content,
        *,
        name: str | None = None,
        source: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Document:
        """Add a text (a str), a text file (a `pathlib.Path`) or a `Document` with ``content``; what
        was added is searchable when this returns.

        A document is known by its ``source``, of a file by default its absolute path, and without
        one by its text. The same content again changes nothing but what else is given; another one
        from the same source takes the place of the old in one step, which is found until then.
        What is left out stays as it is stored. Interrupted, by a crash as well, it is finished by
        adding again.

        `PayloadError`, before anything is written, for what is empty, no file, no text in UTF-8 or
        cannot be stored. An exception of ``embed`` is raised, and the document's status "failed".
        """
        storage = self._use()
        named = Named(name, source, description, metadata)
        given = await read(self.knowledge_base_id, content, named)
        adding = Adding(storage, given, embed=self._embed, passage_size=self._passage_size)
        return await adding.run()

    async def add_many(
        self, contents: Iterable[Content], *, on_progress: OnProgress | None = None
    ) -> builtins.list[Document]:
        """Add one after the other, each as `add` does, and after each call
        ``on_progress(done, total, document)``. What one raises ends it, with a note which it was;
        those before it are in, and cost little when all are added again."""
        self._use()
        if isinstance(contents, (str, bytes)) or not isinstance(contents, Iterable):
            raise ConfigurationError("add_many takes a list of texts, paths or Documents")
        if on_progress is not None and not callable(on_progress):
            raise ConfigurationError(f"on_progress is a function, not {on_progress!r}")
        todo, done = list(contents), []
        for number, content in enumerate(todo, 1):
            try:
                document = await self.add(content)
            except Exception as error:
                error.add_note(f"add_many: number {number} of {len(todo)} was not added")
                raise
            done.append(document)
            if on_progress is not None:
                waiting = on_progress(number, len(todo), document)
                if inspect.isawaitable(waiting):
                    await waiting
        return done

    async def delete(self, document: str | Document) -> bool:
        """Delete a document, by its id; False when there is none."""
        key = self._key_of(document)
        # Chunks of every generation: what is being written now is not finished, either.
        prefix = compound_prefix(key.id)
        drops = [Drop(self._partition, kind, prefix) for kind in ("chunk", "item")]
        [deleted, *_] = await self._use().apply(Delete(key), *drops)
        return deleted.created

    async def clear(self) -> None:
        """Delete everything in this knowledge base, and nothing else."""
        await self._use().apply(Drop(self._partition))

    # --- reading ---

    async def get(self, document: str | Document) -> Document | None:
        """One document, by its id."""
        found = await self._use().get(self._key_of(document))
        return found if isinstance(found, Document) else None

    async def list(
        self,
        *,
        source: str | None = None,
        status: DocumentStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 100,
        before: Document | Cursor | None = None,
    ) -> builtins.list[Document]:
        """Documents, newest first; ``before`` is the last one of the previous page.

        Those whose metadata has all of ``metadata``: engines cannot look into it, so that every
        document there is read until there are ``limit``.
        """
        storage = self._use()
        wanted = _check_metadata(metadata)
        _check_number("limit", limit)
        given = _conditions(source, status)
        place = before.cursor if isinstance(before, Document) else before
        if not isinstance(place, Cursor | None):
            raise ConfigurationError(f"before is a Document or its cursor, not {before!r}")
        if not wanted:
            page = await storage.find(
                "document", self._partition, before=place, limit=limit, **given
            )
            return [each for each in page if isinstance(each, Document)]
        found: builtins.list[Document] = []
        if limit:
            async for each in documents(storage, self._partition, before=place, **given):
                if fits(each, wanted):
                    found.append(each)
                if len(found) == limit:
                    break
        return found

    async def count(
        self,
        *,
        source: str | None = None,
        status: DocumentStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """How many documents `list` would give. Reads all their records, a page at a time."""
        storage, wanted = self._use(), _check_metadata(metadata)
        found = documents(storage, self._partition, **_conditions(source, status))
        return sum([1 async for each in found if fits(each, wanted)])

    async def search(
        self, query: str, limit: int = 5, *, metadata: Mapping[str, Any] | None = None
    ) -> builtins.list[KnowledgeHit]:
        """The passages that fit ``query`` best, best first: by its words, and with ``embed`` by its
        meaning. ``metadata`` as for `list`.

        Documents are found as they are, whole: old or new, never both. Where the engine has no full
        text, the newest 10,000 passages are read and ranked here; vectors are all read, a page at a
        time.
        """
        storage, wanted = self._use(), _check_metadata(metadata)
        if not isinstance(query, str):
            raise ConfigurationError(f"query is a str, not {type(query).__name__}")
        _check_number("limit", limit)
        if not limit or not query.strip():
            return []
        vector = None if self._embed is None else (await embed_texts(self._embed, [query]))[0]
        return await search(storage, self._partition, Question(query, vector, limit, wanted))

    # --- lifecycle ---

    async def close(self) -> None:
        """Close what this knowledge base opened itself. Idempotent."""
        self._closed = True
        await self._owned.aclose()

    async def __aenter__(self) -> Self:
        await self._use().open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"KnowledgeBase(knowledge_base_id={self.knowledge_base_id!r})"

    # --- inside ---

    def _use(self) -> Storage:
        if self._closed:
            raise StorageUnavailableError("this KnowledgeBase is closed: make a new one")
        return self._storage

    def _key_of(self, document: str | Document) -> Key:
        id = document.document_id if isinstance(document, Document) else document
        return Key("document", self._partition, check_id("document_id", id))


def _conditions(source: str | None, status: str | None) -> dict[str, Any]:
    if status is not None and status not in get_args(DocumentStatus):
        known = ", ".join(get_args(DocumentStatus))
        raise ConfigurationError(f"a document is {known}; none is {status!r}")
    if source is None:
        return {"status": status}
    return {"status": status, "tags": Document(source=check_id("source", source)).index_tags}


def _check_metadata(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not isinstance(metadata, Mapping | None):
        raise ConfigurationError(f"metadata is a dict, not {type(metadata).__name__}")
    dump_json(dict(metadata or {}), "metadata")
    return metadata or {}


def _check_number(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigurationError(f"{name} must be a whole number from 0 on, not {number!r}")
