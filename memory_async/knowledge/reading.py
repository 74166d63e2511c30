"""What is to be added to a knowledge base: a text, a file or a `Document`, read and checked."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from memory_async.errors import ConfigurationError, PayloadError
from memory_async.jsontext import dump_json, load_json
from memory_async.keys import check_id
from memory_async.records import Document

__all__ = ["Content", "Given", "Named", "read"]

Content: TypeAlias = str | os.PathLike[str] | Document
"""A text (never a path, however short), a path of a text file, or a `Document` with ``content``."""

# Text to a machine or a printer: the words are not in there as they are read.
_NOT_FOR_READING = {b"%PDF-": "a PDF", b"%!PS": "PostScript", rb"{\rtf": "RTF"}


class Named(NamedTuple):
    """What a document is called and described by; what is None was not said."""

    name: str | None = None
    source: str | None = None
    description: str | None = None
    metadata: Mapping[str, Any] | None = None


class Given(NamedTuple):
    """A text and the document it is to be, with what of its description was given."""

    text: str
    document: Document
    said: dict[str, Any]


async def read(knowledge_base_id: str, content: Content, named: Named) -> Given:
    """Read and check what is to be added. `PayloadError` for what is empty, no text, or cannot be
    stored; `ConfigurationError` for what is no content at all."""
    if isinstance(content, Document):
        return _of_document(knowledge_base_id, content, named)
    if isinstance(content, str):
        return _given(knowledge_base_id, content, named, {})
    if not isinstance(content, os.PathLike):
        raise ConfigurationError(
            f"a knowledge base takes a text, a path or a Document, not {type(content).__name__}"
        )
    path = Path(content)
    text, source = await asyncio.to_thread(_read_file, path)
    named = _first(named, Named(source=source))
    return _given(knowledge_base_id, text, named, {"type": _type_of(path)}, name=path.name)


def _of_document(knowledge_base_id: str, document: Document, named: Named) -> Given:
    if document.content is None:
        raise PayloadError(
            f"{document.name or document.document_id or 'this Document'} has no content: "
            "make a Document(content=..., ...)"
        )
    if document.knowledge_base_id not in ("", knowledge_base_id):
        raise ConfigurationError(
            f"a Document of knowledge base {document.knowledge_base_id!r} cannot be added to "
            f"{knowledge_base_id!r}: leave its knowledge_base_id out"
        )
    own = Named(document.name, document.source, document.description, document.metadata or None)
    said: dict[str, Any] = {"type": document.type}
    if document.extra:
        said["extra"] = document.extra
    if document.document_id:
        said["document_id"] = document.document_id
    return _given(knowledge_base_id, document.content, _first(named, own), said)


def _first(named: Named, own: Named) -> Named:
    """What was said with the call, else what the content itself says."""
    said = {what: value for what, value in named._asdict().items() if value is not None}
    return own._replace(**said)


def _given(
    knowledge_base_id: str,
    text: object,
    named: Named,
    said: dict[str, Any],
    name: str | None = None,
) -> Given:
    """``name`` is for a document that has none yet."""
    raw = _check_text("the text", text)
    if not raw.strip():
        raise PayloadError("there is nothing to add: the text is empty")
    digest = hashlib.sha256(raw).hexdigest()
    for what, value in named._asdict().items():
        if value is None:
            continue
        if what == "metadata":
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"metadata is a dict, not {type(value).__name__}")
            said[what] = load_json(dump_json(dict(value), what))
        elif what == "source":
            said[what] = check_id(what, value)
        else:
            _check_text(what, value)
            said[what] = value
    # The same source, or without one the same text, is the same document, wherever it is added.
    origin = f"source-{_short_hash(named.source)}" if named.source else f"text-{digest[:32]}"
    said = {"document_id": origin, **said}
    described = {"name": name, **said}
    document = Document(
        knowledge_base_id=knowledge_base_id, size=len(raw), hash=digest, **described
    )
    document.key.check()
    return Given(str(text), document, said)


def _check_text(what: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise PayloadError(f"{what} is a str, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise PayloadError(
            f"{what} holds a lone surrogate, which is not valid UTF-8: "
            "clean it with text.encode('utf-8', 'replace').decode()"
        ) from None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_file(path: Path) -> tuple[str, str]:
    """The text, and the path wherever one stands."""
    if path.is_dir():
        raise PayloadError(f"{path} is a folder: add_many(sorted(folder.rglob('*.md'))), say")
    if not path.exists():
        raise PayloadError(f"there is no file {path} (a text is given as a str, not as a path)")
    if not path.is_file():
        raise PayloadError(f"{path} is no regular file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PayloadError(f"cannot read {path}: {error.strerror}") from error
    kind = next((what for mark, what in _NOT_FOR_READING.items() if raw.startswith(mark)), None)
    if kind is None and b"\0" in raw:
        kind = "binary, or not UTF-8"
    try:
        if kind is None:
            return raw.decode("utf-8-sig"), str(path.absolute())
    except UnicodeDecodeError as error:
        kind = f"not UTF-8 (byte {error.start})"
    guess, _ = mimetypes.guess_type(path.name)
    shown = f"{path} ({guess})" if guess else str(path)
    raise PayloadError(f"{shown} is {kind}: convert it to a text in UTF-8 first, and add that")


def _type_of(path: Path) -> str:
    """What the name says, but for text that is called something else, as in "video.ts"."""
    guess, _ = mimetypes.guess_type(path.name)
    if guess is None or guess.startswith(("audio/", "video/", "image/", "font/")):
        return "text/plain"
    return guess
