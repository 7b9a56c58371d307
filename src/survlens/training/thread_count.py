"""How many threads PyTorch and NumPy compute with while pictures are small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_SIDE = 32
"""Largest side of pictures whose layers are too small to be shared out."""


@contextmanager
def threads_for_side(side: int, device: torch.device | str = "cpu") -> Iterator[int]:
    """One thread while pictures of at most 32 pixels are computed with on the CPU; else as many as before.

    A layer on pictures this small takes microseconds. Threads that wait for each other after each gain nothing where
    all cores are free, and take twenty times as long as one of them alone where a core is busy. The same holds for the
    linear algebra of NumPy on so few latent dimensions. The numbers of before are restored at the end.

    Args:
        side: Side of the pictures.
        device: Where networks run.

    Yields:
        The number of threads.
    """
    before = torch.get_num_threads()
    if side > SMALL_SIDE or torch.device(device).type != "cpu":
        yield before
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(1)
        try:
            yield 1
        finally:
            torch.set_num_threads(before)
