from __future__ import annotations

import threading

import pytest
import torch

from bertloom.model.workers import side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield None
    torch.set_num_threads(before)


def test_in_their_order_without_gradients_by_threads_of_one(two_threads: None) -> None:
    met = threading.Barrier(2, timeout=10)

    def work(number: int) -> tuple[int, int, bool]:
        if number < 2:
            met.wait()  # both are computed at once
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    assert list(side_by_side(work, range(9), CPU)) == [(number, 1, False) for number in range(9)]
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()


def test_one_alone_has_all_threads(two_threads: None) -> None:
    assert list(side_by_side(lambda one: torch.get_num_threads(), [1], CPU)) == [2]
    assert list(side_by_side(lambda one: torch.get_num_threads(), [], CPU)) == []


def test_an_error_and_a_stop_give_threads_back(two_threads: None) -> None:
    def bad(number: int) -> int:
        if number == 3:
            raise ValueError("bad")
        return number

    with pytest.raises(ValueError, match="bad"):
        list(side_by_side(bad, range(9), CPU))
    assert torch.get_num_threads() == 2
    stream = side_by_side(lambda one: one, range(9), CPU)
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == 2
