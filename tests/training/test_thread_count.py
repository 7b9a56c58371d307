"""Small pictures take one thread, and what was set before comes back."""

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from survlens.training.thread_count import threads_for_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def linear_algebra() -> set[int]:
    """Threads of the libraries of linear algebra that are loaded and can be told a number."""
    return {int(each["num_threads"]) for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("side", "device", "threads"), [(16, "cpu", 1), (32, "cpu", 1), (64, "cpu", 2), (16, "cuda", 2)]
)
def test_small_pictures_on_the_cpu_take_one_thread(side, device, threads):
    with threads_for_side(side, device) as told:
        assert torch.get_num_threads() == threads == told
        assert linear_algebra() == {threads}
    assert torch.get_num_threads() == 2
    assert linear_algebra() == {2}


@pytest.mark.usefixtures("two_threads")
def test_the_number_comes_back_after_an_error_and_through_nesting():
    with threads_for_side(16):
        with threads_for_side(16):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        assert linear_algebra() == {1}

    def fail() -> None:
        with threads_for_side(16):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == 2
    assert linear_algebra() == {2}
