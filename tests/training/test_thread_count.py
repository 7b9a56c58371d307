"""Small pictures take one thread, and what was set before comes back."""

import pytest
import torch

from survlens.training.thread_count import threads_for_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("side", "device", "threads"), [(16, "cpu", 1), (32, "cpu", 1), (64, "cpu", 2), (16, "cuda", 2)]
)
def test_small_pictures_on_the_cpu_take_one_thread(side, device, threads):
    with threads_for_side(side, device) as told:
        assert torch.get_num_threads() == threads == told
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_the_number_comes_back_after_an_error_and_through_nesting():
    with threads_for_side(16):
        with threads_for_side(16):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1

    def fail() -> None:
        with threads_for_side(16):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == 2
