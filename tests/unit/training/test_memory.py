import re
from collections.abc import Callable

import pytest
import torch

from noisyknn.errors import MachineError
from noisyknn.observer import Silent
from noisyknn.training.memory import Memory


class Notes(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, message: str) -> None:
        self.told.append(message)


def a_gpu_for(images: int, size: int, tried: list[int]) -> Callable[[int], str]:
    def work(parts: int) -> str:
        tried.append(parts)
        if -(-size // parts) > images:
            raise torch.OutOfMemoryError
        return "done"

    return work


def test_what_fits_is_left_whole() -> None:
    memory, notes, tried = Memory(), Notes(), list[int]()
    assert memory.fit(a_gpu_for(64, 64, tried), 64, notes) == "done"
    assert (tried, notes.told, memory.parts) == ([1], [], 1)


def test_what_does_not_fit_is_cut_until_it_does_and_from_then_on() -> None:
    memory, notes, tried = Memory(), Notes(), list[int]()
    assert memory.fit(a_gpu_for(10, 64, tried), 64, notes) == "done"
    assert tried == [1, 2, 4, 8]
    assert [re.findall(r"\d+", note) for note in notes.told] == [["2"], ["4"], ["8"]]
    memory.fit(a_gpu_for(10, 64, tried), 64, notes)
    assert tried[4:] == [8]


def test_small_batches_are_cut_into_pairs_at_most() -> None:
    memory, tried = Memory(parts=8), list[int]()
    for size in (7, 2, 1):
        memory.fit(a_gpu_for(10, size, tried), size, Notes())
    assert tried == [3, 1, 1]


def test_where_two_images_are_too_many_the_user_is_told_what_to_do() -> None:
    tried: list[int] = []
    with pytest.raises(MachineError, match=r"even in batches of 2; try a smaller `image_size`"):
        Memory().fit(a_gpu_for(1, 16, tried), 16, Notes())
    assert tried == [1, 2, 4, 8]
