"""What two processes learn, for `test_adversarial.py`: `adversarial_ranks.py RANK PORT FOLDER`."""

import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist


def main(rank: int, port: str, folder: Path) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": "0",
    }  # fmt: skip
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    from adversarial_problem import blobs, networks, settings

    from survlens.training.adversarial import finetune

    generator, discriminator = networks()
    history = finetune(generator, discriminator, blobs(), settings(steps=3), folder=folder / "result")
    values = torch.tensor([list(row.values.values()) for row in history.rows])
    weights = {f"g/{k}": v for k, v in generator.state_dict().items()}
    weights |= {f"d/{k}": v for k, v in discriminator.state_dict().items()}
    torch.save({"weights": weights, "values": values}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
