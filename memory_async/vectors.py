"""Embedding vectors: as bytes beside what they describe, and compared.

Stored are unit vectors, so that the product of two is their cosine: the number of dimensions
(uint32), then each vector's float32s, all little-endian. An `Item` may hold several of them.
"""

from __future__ import annotations

import asyncio
import math
import struct
import sys
from array import array
from collections.abc import Awaitable, Callable, Sequence
from operator import mul
from typing import TypeAlias

from memory_async.errors import ConfigurationError, CorruptRecordError, ModelError

__all__ = ["Embed", "Vector", "check_embed", "cosine", "embed_texts", "pack", "unit", "unpack"]

Embed: TypeAlias = Callable[[list[str]], Awaitable[Sequence[Sequence[float]]]]
"""An embedding model: one vector for each text, all of one length."""

Vector: TypeAlias = Sequence[float]

_HEAD = struct.Struct("<I")


def check_embed(embed: object) -> None:
    if embed is not None and not callable(embed):
        raise ConfigurationError(
            "embed is an async function from a list of texts to a list of vectors, "
            f"not {type(embed).__name__}"
        )


async def embed_texts(embed: Embed, texts: list[str]) -> list[Vector]:
    """The unit vectors of ``texts``. `ModelError` when ``embed`` gives anything but one vector of
    finite numbers for each; what it raises itself is raised."""
    answer = embed(list(texts))
    if not isinstance(answer, Awaitable):
        raise ConfigurationError(f"embed must be async; it returned {type(answer).__name__}")
    given = await answer
    try:
        vectors = [[float(number) for number in vector] for vector in given]
    except (TypeError, ValueError) as error:
        raise ModelError(f"embed gave no vectors of numbers: {error}") from error
    if len(vectors) != len(texts):
        raise ModelError(f"embed gave {len(vectors)} vectors for {len(texts)} texts")
    if len({len(vector) for vector in vectors}) > 1 or not all(vectors):
        raise ModelError("embed gave vectors of different lengths, or empty ones")
    # Many at once take a while: others have a turn before what is written next.
    await asyncio.sleep(0)
    return [unit(vector) for vector in vectors]


def unit(vector: Vector) -> Vector:
    """The vector of length 1 in the same direction; of nothing but zeros itself."""
    length = math.hypot(*vector)
    if not math.isfinite(length):
        raise ModelError("embed gave a vector with NaN or infinite numbers")
    return array("f", [number / length for number in vector] if length else vector)


def cosine(one: Vector, other: Vector) -> float:
    """How alike two unit vectors are, from -1 to 1; vectors of two models, of different lengths,
    are not alike: 0."""
    return sum(map(mul, one, other)) if len(one) == len(other) else 0.0


def pack(vectors: Sequence[Vector]) -> bytes:
    """Vectors of one length as they are stored."""
    numbers = array("f")
    for vector in vectors:
        numbers.extend(vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return _HEAD.pack(len(vectors[0]) if vectors else 0) + numbers.tobytes()


def unpack(packed: object) -> list[Vector]:
    """What `pack` was given. `CorruptRecordError` for anything else."""
    if not isinstance(packed, bytes) or len(packed) < _HEAD.size:
        raise CorruptRecordError("these are no packed vectors")
    [length] = _HEAD.unpack_from(packed)
    numbers = array("f")
    try:
        numbers.frombytes(packed[_HEAD.size :])
    except ValueError:
        raise CorruptRecordError("packed vectors were cut off") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    if (length == 0) != (not numbers) or (length and len(numbers) % length):
        raise CorruptRecordError(f"{len(numbers)} numbers are no vectors of {length}")
    return [numbers[start : start + length] for start in range(0, len(numbers), length or 1)]
