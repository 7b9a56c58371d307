"""Whom an explanation is about: the held-out patients that were asked for, and the two that pictures show."""

from __future__ import annotations

import numpy as np

from survlens.core.errors import UsageError

RULE = (
    "the patients whose predicted risk is nearest to the 10th and the 90th percentile of the risks of the explained "
    "patients with an event (of all explained patients, where fewer than two had one)"
)
"""How the two patients of the pictures are chosen, in words."""
_SHOWN = 5


def explained_rows(
    asked: str, names: np.ndarray, patients: np.ndarray, risk: np.ndarray, event: np.ndarray
) -> np.ndarray:
    """Positions of the held-out rows that are explained, in order.

    Args:
        asked: "all", "chosen", a number of rows spread evenly over the order of risk, or names with commas between.
        names: Name of each row.
        patients: Patient of each row; a patient's name stands for all rows of the patient.
        risk: Predicted risk of each row.
        event: Event of each row.

    Raises:
        UsageError: If a name is not held out, or more rows are asked for than there are.
    """
    everyone = np.arange(len(names))
    if asked == "all":
        return everyone
    if asked == "chosen":
        return np.sort(chosen_two(risk, event))
    if asked.strip().isdigit():
        return spread_rows(int(asked), risk)
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in set(names) | set(patients)]
    if unknown or not wanted:
        raise UsageError(
            f"`patients` must be all, chosen, a number, or names of held-out patients of the fold; got "
            f"{len(unknown)} that are not held out in it: {', '.join(map(repr, unknown[:_SHOWN])) or 'no name'}. "
            "Choose the fold that tests them with --fold."
        )
    taken = {name: everyone[(names == name) | (patients == name)] for name in wanted}
    return np.array(list(dict.fromkeys(int(row) for rows in taken.values() for row in rows)))


def chosen_two(risk: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Positions of the two rows that `RULE` chooses, of low risk first; one where there is one row. Ties: the first."""
    among = np.flatnonzero(event > 0)
    among = among if len(among) > 1 else np.arange(len(risk))
    if len(among) < 2:
        return among
    low, high = np.quantile(risk[among], [0.1, 0.9])
    first = int(np.abs(risk[among] - low).argmin())
    rest = np.delete(among, first)
    return np.array([among[first], rest[np.abs(risk[rest] - high).argmin()]])


def spread_rows(count: int, risk: np.ndarray) -> np.ndarray:
    """Positions of `count` rows spread evenly over the order of risk.

    Raises:
        UsageError: If there are fewer rows.
    """
    if not 1 <= count <= len(risk):
        raise UsageError(
            f"`patients` must be at most the {len(risk)} rows that are held out in the fold; got {count}. "
            "End a name that is a number with a comma."
        )
    places = np.round(np.linspace(0, len(risk) - 1, count)).astype(int)
    return np.sort(np.argsort(risk, kind="stable")[places])
