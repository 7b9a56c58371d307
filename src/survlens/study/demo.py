"""The demo: surv-digits, from 1,797 small pictures to the report."""

from __future__ import annotations

from pathlib import Path

from survlens.data.simulate.digits import scikit_digits_survival
from survlens.study.digits_folder import DigitsPlan, write_digits
from survlens.study.explain_settings import ExplainSettings

_PICTURES = "scikit-learn load_digits, 8 x 8"


def write_demo(folder: Path, *, seed: int = 0, quick: bool = False) -> Path:
    """Writes the pictures, the clinical table and the study file of the demo, and returns the latter.

    Args:
        folder: Where to.
        seed: Seed of the survival times and of the study.
        quick: One seed, few epochs and few bootstrap draws: to see that everything works, not to read the numbers.
    """
    if quick:
        plan = DigitsPlan(name="surv-digits", pictures=_PICTURES, seeds=(seed,), epochs=4, cnn_epochs=2, bootstrap=50)
    else:
        plan = DigitsPlan(name="surv-digits", pictures=_PICTURES, seeds=(seed, seed + 1, seed + 2))
    return write_digits(folder, scikit_digits_survival(seed=seed), plan)


def demo_explanation() -> ExplainSettings:
    """What of the demo is explained over time: the survival that the end-to-end network reads from the pictures."""
    return ExplainSettings(model="cox_cnn", method="gradshap", patients="60", references=10, checks=20)
