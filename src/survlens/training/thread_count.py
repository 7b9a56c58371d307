"""How many threads PyTorch computes with while pictures are small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_SIDE = 32
"""Largest side of pictures whose layers are too small to be shared out."""


@contextmanager
def threads_for_side(side: int, device: torch.device | str = "cpu") -> Iterator[int]:
    """One thread while pictures of at most 32 pixels are computed with on the CPU; else as many as before.

    A layer on pictures this small takes microseconds. Threads that wait for each other after each take longer than one
    of them alone where all cores are free, and twenty times as long where one is busy. The number of before is restored
    at the end.

    Args:
        side: Side of the pictures.
        device: Where networks run.

    Yields:
        The number of threads.
    """
    before = torch.get_num_threads()
    if side > SMALL_SIDE or torch.device(device).type != "cpu" or before == 1:
        yield before
        return
    torch.set_num_threads(1)
    try:
        yield 1
    finally:
        torch.set_num_threads(before)
