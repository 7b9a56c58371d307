"""surv-MNIST: the τ panels of the CoxVAE paper's Figure 4 and its table of downstream models (Weber et al.)."""

from __future__ import annotations

from pathlib import Path

from survlens.data.simulate.digits import mnist_survival
from survlens.study.digits_folder import DigitsPlan, write_digits


def write_surv_mnist(folder: Path, mnist: Path, *, seed: int = 0) -> Path:
    """Writes the pictures, a clinical table and the study file of surv-MNIST, and returns the latter.

    Args:
        folder: Where to.
        mnist: Folder with the idx files of MNIST: the 10,000 test pictures, the 60,000 training pictures, or both.
        seed: Seed of the survival times and of the study.
    """
    digits = mnist_survival(mnist, seed=seed)
    # About as many steps however many pictures there are.
    epochs = max(6, round(25 * 10_000 / len(digits)))
    plan = DigitsPlan(
        name="surv-MNIST",
        pictures=f"{len(digits):,} of MNIST, 28 x 28",
        seeds=(seed,),
        side=28,
        hidden=(512, 256),
        epochs=epochs,
        cnn_epochs=max(2, round(0.2 * epochs)),
        bootstrap=200,
    )
    return write_digits(folder, digits, plan)
