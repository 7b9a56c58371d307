"""The Python of docs/transfer.md runs, in order, on a small problem."""

import re
from pathlib import Path

import torch

from survlens.encoders.transfer_3d import Shortcut, TransferResNet3D
from survlens.training.settings import FitSettings

PAGE = Path(__file__).parents[2] / "docs" / "transfer.md"


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, rows, model, weights):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    given = TransferResNet3D(18, shortcut=Shortcut.PADDING)
    torch.save({"state_dict": given.state_dict()}, tmp_path / "resnet_18.pth")
    names = {"model": model(), "settings": FitSettings(epochs=1, batch=16, learning_rate=0.01)}
    exec(blocks[0], names)  # noqa: S102
    assert torch.equal(names["encoder"].conv1.weight, given.conv1.weight)
    before = weights(names["model"])
    names |= {"train": rows(), "validation": rows(40, seed=1)}
    exec(blocks[1], names)  # noqa: S102
    after = weights(names["model"])
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"head"}
    names |= {"train": rows(), "validation": rows(40, seed=1)}
    exec(blocks[2], names)  # noqa: S102
    assert not torch.equal(
        after["encoders.table.layers.0.weight"], weights(names["model"])["encoders.table.layers.0.weight"]
    )
