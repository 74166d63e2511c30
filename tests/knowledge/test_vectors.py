"""Vectors as bytes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_async.errors import CorruptRecordError
from memory_async.vectors import cosine, pack, unit, unpack

NUMBERS = st.floats(-1e6, 1e6, width=32)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n))))
def test_vectors_come_back(vectors: list[list[float]]) -> None:
    units = [unit(each) for each in vectors]
    assert [list(each) for each in unpack(pack(units))] == [list(each) for each in units]


@given(st.lists(NUMBERS, min_size=1, max_size=5).filter(any))
def test_a_vector_is_like_itself(vector: list[float]) -> None:
    one = unit(vector)
    assert math.isclose(cosine(one, one), 1.0, abs_tol=1e-5)
    assert math.isclose(cosine(one, unit([-each for each in vector])), -1.0, abs_tol=1e-5)


def test_vectors_of_two_models_are_not_alike() -> None:
    assert cosine(unit([1.0]), unit([1.0, 0.0])) == 0.0
    assert cosine(unit([0.0]), unit([1.0])) == 0.0


@pytest.mark.parametrize(
    "rubbish",
    [None, {}, "text", b"", b"\1\0\0\0", b"\0\0\0\0abcd", b"\1\0\0\0abc", b"\2\0\0\0abcd"],
    ids=repr,
)
def test_rubbish_is_told(rubbish: object) -> None:
    with pytest.raises(CorruptRecordError):
        unpack(rubbish)
