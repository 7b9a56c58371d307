"""Two processes find the loss and the gradients that one process finds on all rows."""

import os
import socket
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from survlens.training.risk_set import gather_outcome, gather_rows, gathered_loss, mean_over_ranks

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("two_ranks", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two gloo processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(SCRIPT), str(rank), port, str(folder)] for rank in (0, 1)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) for command in commands]
    try:
        errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_loss_and_gradients_of_uneven_ranks_equal_those_of_one_process(both, script):
    alone = script.gradients(slice(0, 24), 1)
    for rank in both:
        assert rank["gradients"].keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(rank["gradients"][name], gradient, rtol=1e-5, atol=1e-7)


def test_a_fit_on_two_ranks_is_that_of_one_process(both, script):
    alone = script.trained()
    for rank in both:
        for name, value in alone.items():
            torch.testing.assert_close(rank["trained"][name], value, rtol=1e-4, atol=1e-5)


def test_one_process_gathers_itself(rows):
    source = rows(10)
    table = source.inputs["table"]
    assert gather_rows(table) is table
    assert gather_outcome(source.outcome) is source.outcome
    assert torch.equal(mean_over_ranks(table[:, 0]), table[:, 0].mean())
    losses, everyone = gathered_loss(lambda risk, outcome: risk * outcome.event, table[:, 0], source.outcome)
    assert torch.equal(losses, table[:, 0] * everyone.event)
