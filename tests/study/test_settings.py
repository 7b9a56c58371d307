import dataclasses
import json
from pathlib import Path

import pytest

from survlens.core.errors import UsageError
from survlens.study.model_settings import KINDS, CoxVaeModel, Modality
from survlens.study.resolved import from_resolved, resolved
from survlens.study.settings import SplitKind
from survlens.study.toml_source import parse_study, read_study

GOOD = """\
[study]
name = "trial"
seed = 7

[data]
table = "clinical.csv"
unit = "months"
time = "time"
event = "died"
patient = "patient"
image = "image"
numeric = ["age", "size"]
ordered = { grade = ["I", "II", "III"] }

[split]
kind = "folds"
folds = 3

[[model]]
name = "vae"
kind = "cox_vae"
tau = 0.25
hidden = [8, 16]
[model.fit]
epochs = 3

[[model]]
name = "down"
kind = "downstream"
embedding = "vae"
estimator = "forest"

[[model]]
name = "fused"
kind = "late_fusion"
members = ["vae", "clinical_cox"]

[evaluation]
horizons = [6, 12.5]
"""
LINES = GOOD.split("\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    root.mkdir()
    (root / "clinical.csv").write_text("patient,time,died,age,size,grade,image\n")
    (tmp_path / "outside.csv").write_text("a\n")
    (root / "link.csv").symlink_to(tmp_path / "outside.csv")
    return root


def parse(folder: Path, text: str = GOOD, *overrides: str):
    return parse_study(text, "study.toml", folder, overrides)


def test_a_good_file_says_what_it_says(folder):
    study = parse(folder)
    assert study.data.numeric == ("age", "size")
    assert study.data.ordered["grade"] == ("I", "II", "III")
    assert study.split.kind is SplitKind.FOLDS
    assert study.evaluation.horizons == (6.0, 12.5)
    assert study.files().table == (folder / "clinical.csv").resolve()
    vae = study.model("vae")
    assert vae.settings == CoxVaeModel(tau=0.25, hidden=(8, 16))
    assert (vae.inputs, vae.seeds, vae.fit.epochs) == ((Modality.IMAGE,), (7,), 3)


def test_the_reference_rows_come_first_and_always(folder):
    assert [entry.name for entry in parse(folder).models[:2]] == ["kaplan_meier", "clinical_cox"]
    assert [entry.name for entry in parse(folder, GOOD[: GOOD.index("[[model]]")]).models] == [
        "kaplan_meier",
        "clinical_cox",
    ]


def test_without_covariates_there_is_no_clinical_row(folder):
    text = GOOD.replace('numeric = ["age", "size"]\n', "").replace('ordered = { grade = ["I", "II", "III"] }\n', "")
    text = text.replace('members = ["vae", "clinical_cox"]', 'members = ["vae", "down"]')
    assert "clinical_cox" not in [entry.name for entry in parse(folder, text).models]


def test_a_reference_row_can_be_given_settings(folder):
    text = GOOD.replace("[evaluation]", '[[model]]\nname = "clinical_cox"\nkind = "cox"\npenalty = 0.1\n[evaluation]')
    text = text.replace('members = ["vae", "clinical_cox"]', 'members = ["vae", "down"]')
    names = [entry.name for entry in parse(folder, text).models]
    assert names.count("clinical_cox") == 1
    assert parse(folder, text).model("clinical_cox").settings.penalty == 0.1


def test_overrides_are_typed_like_the_file(folder):
    study = parse(
        folder, GOOD, "model.vae.tau=0.5", "evaluation.horizons=[2, 5]", "model.vae.fit.epochs=9", "split.kind=holdout"
    )
    assert study.model("vae").settings.tau == 0.5
    assert study.evaluation.horizons == (2.0, 5.0)
    assert study.model("vae").fit.epochs == 9
    assert study.split.kind is SplitKind.HOLDOUT


def test_the_seed_of_the_study_reaches_models_that_name_none(folder):
    assert all(entry.seeds == (11,) for entry in parse(folder, GOOD, "study.seed=11").models)


def test_windows_line_ends_change_nothing(folder):
    (folder / "study.toml").write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert read_study(folder / "study.toml").model("vae") == parse(folder).model("vae")


def test_every_kind_has_a_row_that_can_be_written_down(folder):
    needed = {"late_fusion": 'members = ["vae", "clinical_cox"]', "downstream": 'embedding = "vae"'}
    for name, kind in KINDS.items():
        text = GOOD.replace(
            "[evaluation]", f'[[model]]\nname = "row"\nkind = "{name}"\n{needed.get(name, "")}\n[evaluation]'
        )
        entry = parse(folder, text).model("row")
        assert isinstance(entry.settings, kind.settings)
        assert dataclasses.is_dataclass(entry.settings)


def test_a_range_holds_whoever_builds_the_settings():
    with pytest.raises(UsageError, match=r"`tau` must lie in \[0, 1\]; got 1.5"):
        CoxVaeModel(tau=1.5)


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def line(text: str) -> int:
    """Number of the line of GOOD that starts with `text`."""
    return next(at for at, row in enumerate(LINES, 1) if row.startswith(text))


BAD = {
    "no toml": (change('name = "trial"', 'name = "trial'), ["study.toml: must be valid TOML", "line 2"]),
    "a key twice": (change("seed = 7", "seed = 7\nseed = 8"), ["must be valid TOML", "line 4"]),
    "an unknown section": (
        change("[evaluation]", "[evaluate]"),
        ["`evaluate`", 'Did you mean "evaluation"?', f"line {line('[evaluation]')}"],
    ),
    "an unknown key": (change("numeric", "numbers"), ["`data.numbers`", "known setting", f"line {line('numeric')}"]),
    "a key with a slip": (change("folds = 3", "fold = 3"), ['Did you mean "folds"?', f"line {line('folds')}:"]),
    "a key of another kind of model": (
        change("tau = 0.25", "trees = 10"),
        ["`model.vae.trees`", "setting of cox_vae", f"line {line('tau')}"],
    ),
    "an unknown kind": (
        change('kind = "cox_vae"', 'kind = "coxvae"'),
        ["kind of model", 'Did you mean "cox_vae"?', "line 21:"],
    ),
    "no kind": (change('kind = "cox_vae"\n', ""), ["`model.vae.kind`", "be given"]),
    "a text for a number": (
        change("tau = 0.25", 'tau = "0.25"'),
        ["must be a number", 'got a text in quotes ("0.25")', f"line {line('tau')}"],
    ),
    "a fraction for a whole number": (
        change("folds = 3", "folds = 3.5"),
        ["must be a whole number", "got a number (3.5)"],
    ),
    "true for a number": (change("folds = 3", "folds = true"), ["must be a whole number", "true or false (true)"]),
    "a text for a list": (change('["age", "size"]', '"age"'), ["`data.numeric` must be a list", "brackets"]),
    "a number in a list of texts": (change('"size"]', "3]"), ["`data.numeric`", "text in quotes", "3"]),
    "out of range": (
        change("tau = 0.25", "tau = 1.5"),
        ["`model.vae.tau` must lie in [0, 1]; got 1.5", f"line {line('tau')}"],
    ),
    "not finite": (change("tau = 0.25", "tau = nan"), ["be a finite number; got nan"]),
    "one fold": (change("folds = 3", "folds = 1"), ["`split.folds` must be at least 2; got 1"]),
    "not one of the choices": (
        change('"folds"', '"kfold"'),
        ["`split.kind` must be one of", '"holdout"', 'Did you mean "folds"?'],
    ),
    "a required key missing": (change('time = "time"\n', ""), ["`data.time` must be given", "line 5", "Add time = "]),
    "a section missing": (change('[study]\nname = "trial"\nseed = 7\n', ""), ["`study.name` must be given"]),
    "a section that is a value": (
        "study = 3\n" + change('[study]\nname = "trial"\nseed = 7\n', ""),
        ["`study` must be a section"],
    ),
    "a path that climbs out": (
        change('"clinical.csv"', '"../outside.csv"'),
        ["`data.table`", "stay inside the data root", "line 6"],
    ),
    "an absolute path": (change('"clinical.csv"', '"/etc/passwd"'), ["`data.table` must be relative", "line 6"]),
    "a link that leads out": (change('"clinical.csv"', '"link.csv"'), ["stay inside the data root", "line 6"]),
    "a table that is not there": (change('"clinical.csv"', '"other.csv"'), ["`data.table` must be a file", "line 6"]),
    "a root that is not there": (
        change('table = "clin', 'root = "nowhere"\ntable = "clin'),
        ["`data.root` must be a folder"],
    ),
    "a covariate twice": (change('"size"]', '"age"]'), ["`data.numeric` must name each covariate once"]),
    "one level": (change('["I", "II", "III"]', '["I"]'), ["`data.ordered`", "at least two different levels"]),
    "horizons that fall": (
        change("[6, 12.5]", "[12, 6]"),
        ["`evaluation.horizons` must be times above 0 that increase"],
    ),
    "two models of one name": (change('name = "down"', 'name = "vae"'), ["`model.vae.name` must be unique"]),
    "a name that is a path": (change('name = "down"', 'name = "../x"'), ["must start with a letter", "names files"]),
    "an embedding that is not there": (
        change('embedding = "vae"', 'embedding = "vea"'),
        ['Did you mean "vae"?', "stands before"],
    ),
    "an embedding of no network": (
        change('embedding = "vae"', 'embedding = "clinical_cox"'),
        ["network that stands before"],
    ),
    "a member that stands later": (
        change('"vae", "clinical_cox"', '"later", "clinical_cox"'),
        ["model that stands before this one"],
    ),
    "one member": (change('"vae", "clinical_cox"', '"vae"'), ["at least two different models"]),
    "an image that is not named": (
        change('image = "image"\n', ""),
        ["`model.vae.inputs`", "no image column in [data]"],
    ),
    "an image that cannot be halved": (
        change('image = "image"\n', 'image = "image"\nimage_size = 30\n'),
        ["`data.image_size` must be a multiple of 4"],
    ),
    "a split by an unnamed site": (change('kind = "folds"', 'kind = "site"'), ["`data.site` must be given"]),
    "a split by column without values": (change('kind = "folds"', 'kind = "column"'), ["`split.column` must be given"]),
    "a subgroup that is no column": (
        change("horizons", 'subgroups = ["ages"]\nhorizons'),
        ['Did you mean "age"?', "evaluation.subgroups"],
    ),
    "a member that predicts nothing": (change("tau = 0.25", "tau = 1"), ["must name models that predict survival"]),
    "seeds twice": (change("tau = 0.25", "seeds = [1, 1]"), ["`model.vae.seeds` must be different numbers"]),
    "fit of a model that is not trained": (
        change('embedding = "vae"', 'embedding = "vae"\nfit = { epochs = 3 }'),
        ["`model.down.fit`"],
    ),
    "a single bracket": (
        GOOD[: GOOD.index("[[model]]")] + '[model]\nname = "a"\n',
        ["`model` must be a list", "[[model]]"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_place(folder, name):
    text, fragments = BAD[name]
    with pytest.raises(UsageError) as caught:
        parse(folder, text)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert str(caught.value).startswith("study.toml")


BAD_OVERRIDES = {
    "model.vae.tua=0.3": ['Did you mean "tau"?', "--set model.vae.tua=0.3"],
    "model.vea.tau=0.3": ["with a model of the study", "vae, down, fused"],
    "evaluation.horizons=[2,": ["must give a TOML value"],
    "evaluation.horizons=2": ["must be a list"],
    "model.vae.tau=yes": ["must be a number", 'a text in quotes ("yes")'],
    "model.vae.tau=2": ["must lie in [0, 1]; got 2.0", "--set model.vae.tau=2"],
    "seed=3": ["SECTION.KEY=VALUE"],
    "study.seed": ["SECTION.KEY=VALUE"],
    "study.seed=": ["must give a TOML value"],
    "study.seed=1\nx=2": ["must give a TOML value"],
    "studdy.seed=3": ['Did you mean "study"?'],
    "study.seed.deep=3": ["`seed` is no section"],
    "data.table=/etc/passwd": ["must be relative", "--set data.table=/etc/passwd"],
}


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_a_bad_override_is_refused_and_named(folder, override):
    with pytest.raises(UsageError) as caught:
        parse(folder, GOOD, override)
    for fragment in BAD_OVERRIDES[override]:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"\xff\xfe[study]", "UTF-8"), (b"#" * (1 << 20) + b"#", "at most 1 MB")],
)
def test_a_file_that_is_no_text_is_refused(folder, content, fragment):
    (folder / "study.toml").write_bytes(content)
    with pytest.raises(UsageError, match=fragment):
        read_study(folder / "study.toml")


def test_a_missing_file_is_refused(folder):
    with pytest.raises(UsageError, match="is not a file"):
        read_study(folder / "none.toml")


def test_resolved_settings_are_plain_and_read_back_the_same(folder):
    study = parse(folder)
    plain = json.loads(json.dumps(resolved(study)))
    assert from_resolved(plain) == dataclasses.replace(study, paths=None)
    assert str(folder) not in json.dumps(plain)
