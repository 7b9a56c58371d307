"""What two processes see, for `test_risk_set.py`: `two_ranks.py RANK PORT FOLDER`."""

import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from survlens.core.outcome import SurvivalOutcome
from survlens.data.loaders import TensorSource
from survlens.encoders.mlp import MLP
from survlens.heads.cox import CoxPH
from survlens.losses.reduction import reduce
from survlens.models.survival_model import SurvivalModel
from survlens.training.fit import FitSettings, fit
from survlens.training.objectives import SurvivalObjective
from survlens.training.risk_set import gathered_loss, mean_over_ranks

UNEVEN = (slice(0, 5), slice(5, 24))


def problem() -> tuple[TensorSource, SurvivalModel]:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(24, 3, generator=generator)
    time = torch.randint(1, 9, (24,), generator=generator)  # tied times, also across the ranks
    outcome = SurvivalOutcome.from_arrays(time, torch.rand(24, generator=generator) > 0.3, "months")
    torch.manual_seed(1)
    return TensorSource({"table": table}, outcome), SurvivalModel(MLP(3, (6,)), CoxPH(6))


def gradients(rows: slice, ranks: int) -> dict[str, torch.Tensor]:
    source, model = problem()
    inputs, outcome = source.batch(torch.arange(24)[rows])
    losses, everyone = gathered_loss(model.head.loss, model.embed(inputs), outcome)
    loss = reduce(losses, everyone, model.head.reduction)
    (loss + mean_over_ranks(model.embed(inputs)[:, 0])).backward()
    for weight in model.parameters():
        if ranks > 1:
            dist.all_reduce(weight.grad)
        weight.grad /= ranks
    return {"loss": loss.detach()[None]} | {name: weight.grad for name, weight in model.named_parameters()}


def trained() -> dict[str, torch.Tensor]:
    source, model = problem()
    settings = FitSettings(epochs=3, batch=8, learning_rate=0.01, clip_gradient=1.0)
    history = fit(model, source, TensorSource(*source.batch(torch.arange(10))), SurvivalObjective(), settings)
    losses = [row.validation["total"] for row in history.rows if row.validation]
    return {"losses": torch.tensor(losses)} | dict(model.state_dict())


def main(rank: int, port: str, folder: Path) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": "0",
    }  # fmt: skip
    warnings.simplefilter("ignore")
    weights = trained()  # Fabric sets the processes up
    found = gradients(UNEVEN[rank], 2)
    torch.save({"gradients": found, "trained": weights}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
