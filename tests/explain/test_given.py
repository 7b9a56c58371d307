"""What explainers cannot take is refused in the words of the one who gave it, by every explainer alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.explainer_rows import (
    EXPLAINERS,
    TIMES,
    Row,
    every_explainer,
    model_with,
    references,
    rows_where,
    some_input,
    some_model,
)
from contracts.head_rows import HEADS
from survlens.core.errors import InvalidTypeError, InvalidValueError, SurvlensError
from survlens.core.targets import survival
from survlens.explain.gradient import Gradient
from survlens.explain.references import References

Answer = tuple[Any, Any]
LATEST = 1e4
ASKED = torch.tensor(TIMES, dtype=torch.float64)


@dataclass(frozen=True)
class Bad:
    """Inputs and times that are refused: from a good tensor and its name to both, and what the message says."""

    make: Callable[[Tensor, str], Answer]
    error: type[SurvlensError]
    says: str


def with_nan(x: Tensor, name: str) -> Answer:
    x = x.clone()
    x[1].flatten()[0] = float("nan")
    return {name: x}, TIMES


BAD = {
    "a tensor": Bad(lambda x, name: (x, TIMES), InvalidTypeError, "`inputs` must be a mapping .*; got Tensor"),
    "an array": Bad(lambda x, name: ({name: x.numpy()}, TIMES), InvalidTypeError, r"`inputs\['\w+'\]` .* got ndarray"),
    "a value that is not finite": Bad(with_nan, InvalidValueError, r"`inputs\['\w+'\]` must be finite; .* rows: 1\."),
    "no axis of instances": Bad(lambda x, name: ({name: x.flatten()[:3]}, TIMES), InvalidValueError, r"must"),
    "another width": Bad(
        lambda x, name: ({name: torch.cat([x, x[:, :1]], dim=1)}, TIMES), InvalidValueError, r"shape|columns|broadcast"
    ),
    "words as times": Bad(lambda x, name: ({name: x}, ["a", "b"]), InvalidTypeError, "`times` must be a vector of num"),
    "a table of times": Bad(lambda x, name: ({name: x}, torch.ones(3, 2)), InvalidValueError, r"`times` .* \(3, 2\)"),
    "a late time": Bad(lambda x, name: ({name: x}, [5.0, LATEST]), InvalidValueError, r"`times` .* Leave later times"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@every_explainer
def test_what_cannot_be_taken_is_refused_in_words(row: Row, bad: Bad) -> None:
    inputs, times = bad.make(some_input(row), "image" if row.image else "table")
    explainer, model = row.build(references(image=row.image)), some_model(row, row.heads[0])
    with pytest.raises(bad.error, match=bad.says):
        explainer(model, inputs, times, row.target)


@rows_where(lambda row: not row.image)
def test_integers_are_refused_where_the_network_computes_with_them(row: Row) -> None:
    whole = torch.ones((3, some_input(row).shape[1]), dtype=torch.int64)
    with pytest.raises((InvalidTypeError, InvalidValueError), match="floating point|numbers"):
        row.build(References({"table": whole}, "ones"))(
            model_with("CoxPH network"), {"table": whole}, ASKED, row.target
        )


@every_explainer
def test_no_rows_give_no_rows_or_a_clear_error(row: Row) -> None:
    name = "image" if row.image else "table"
    explainer, model = row.build(references(image=row.image)), some_model(row, row.heads[0])
    try:
        (found,) = explainer(model, {name: some_input(row)[:0]}, ASKED, row.target).values()
    except InvalidValueError as error:
        assert "at least one row" in str(error)  # noqa: PT017
    else:
        assert found.values.shape[0] == 0


@every_explainer
def test_inference_mode_changes_nothing(row: Row) -> None:
    name = "image" if row.image else "table"
    model = some_model(row, row.heads[0])
    (usual,) = row.build(references(image=row.image))(model, {name: some_input(row)}, ASKED, row.target).values()
    with torch.inference_mode():
        own = {name: some_input(row)}
        (found,) = row.build(references(image=row.image))(model, own, ASKED.clone(), row.target).values()
    torch.testing.assert_close(found.values, usual.values, rtol=1e-5, atol=1e-6)


@rows_where(lambda row: row.networks_only)
def test_half_precision_is_refused_where_it_is_differentiated(row: Row) -> None:
    model = copy.deepcopy(some_model(row, row.heads[0])).bfloat16()
    name = "image" if row.image else "table"
    with pytest.raises(InvalidTypeError, match=r"bfloat16.*\.float\(\)"):
        row.build(references(image=row.image))(model, {name: some_input(row)}, ASKED, row.target)


@pytest.mark.parametrize("head", [name for name, row in HEADS.items() if "CoxTime" not in name])
def test_the_last_time_may_be_rounded(head: str) -> None:
    model, x = model_with(head), some_input(EXPLAINERS["Gradient"])
    last = model.predict_survival({"table": x}).times[-1].reshape(1)
    rounded = torch.nextafter(last.float(), torch.tensor(torch.inf))
    found = Gradient()(model, {"table": x}, rounded)["table"].values
    exact = Gradient()(model, {"table": x}, last)["table"].values
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6 * float(exact.abs().max()))


def test_placeholders_of_missing_modalities_may_be_anything() -> None:
    held = {"table": torch.tensor([[1.0], [float("nan")]]), "table.present": torch.tensor([True, False])}
    assert len(References(held, "one row")) == 2
    with pytest.raises(InvalidValueError, match=r"`references.inputs\['table'\]` must be finite"):
        References({"table": held["table"]}, "two rows")


def test_an_attribution_may_be_turned_round() -> None:
    model, x = model_with("CoxPH network"), some_input(EXPLAINERS["Gradient"])
    found = Gradient()(model, {"table": x}, ASKED, survival)["table"]
    assert torch.equal(found[::-1].values, found.values.flip(0))
    assert np.array_equal(found[::-1].numpy(), found.numpy()[::-1])


def test_errors_of_the_network_that_are_none_of_the_inputs_stay_as_they_are() -> None:
    class Odd(nn.Module):
        def forward(self, table: Tensor) -> Tensor:
            raise RuntimeError("a fuse blew")

    model = model_with("CoxPH network")
    model.encoders["table"] = Odd()
    with pytest.raises(RuntimeError, match="a fuse blew"):
        Gradient()(model, {"table": some_input(EXPLAINERS["Gradient"])}, ASKED)
