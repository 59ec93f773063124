"""Memory given back, and oneDNN switched for a while."""

from __future__ import annotations

import weakref

import pytest
import torch

from bertloom.train.memory import give_back_memory, one_dnn


class Ring:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_rings_of_objects_are_given_back() -> None:
    held = weakref.ref(Ring())
    give_back_memory()
    assert held() is None


@pytest.mark.parametrize("before", [True, False])
def test_one_dnn_is_as_it_was_afterwards(before: bool) -> None:
    def fail() -> None:
        with one_dnn(not before):
            assert torch.backends.mkldnn.enabled is not before
            raise ZeroDivisionError

    with one_dnn(before):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.backends.mkldnn.enabled is before
