"""The table of bad inputs: what is done to a good study, which command then runs, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

STUDY = """\
[study]
name = "tiny"
seed = 3

[data]
table = "clinical.csv"
time = "months"
event = "died"
unit = "months"
patient = "patient"
image = "image"
numeric = ["age"]
categorical = ["arm"]
image_size = 8
channels = "grey"

[split]
kind = "column"
column = "side"
test_values = ["test"]

[[model]]
name = "vae"
kind = "cox_vae"
latent = 2
hidden = [4]
[model.fit]
epochs = 2
batch = 32
device = "cpu"

[evaluation]
horizons = [6]
bootstrap = 0
"""
PATIENTS = 40
CHECK, DRY_RUN = "check study.toml", "run study.toml --out ../run --dry-run"
RUN, RESUME = "run study.toml --out ../run", "run study.toml --out ../run --resume"
EVALUATE, REPORT = "evaluate ../run", "report ../run"
FINE, FAILURE, USAGE, DATA, INTERRUPTED = 0, 1, 2, 3, 130


def write_good_study(folder: Path) -> Path:
    """A study of 40 patients with one picture of 8 x 8 pixels each, in `folder`."""
    random = np.random.default_rng(8)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(PATIENTS):
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        rows.append({
            "patient": f"p{number}", "image": f"images/{number}.png", "months": round(1 + 20 * random.random(), 2),
            "died": int(number % 4 > 0), "age": 50 + int(20 * random.random()), "arm": "ab"[random.integers(2)],
            "side": "test" if number % 3 == 0 else "train",
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "clinical.csv", index=False)
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    return folder / "study.toml"


@dataclass(frozen=True)
class Scene:
    """What a change may touch: the folder of the study, the folder of a finished run, and the system's calls."""

    study: Path
    run: Path
    patch: pytest.MonkeyPatch


Change = Callable[[Scene], object]


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        name: What is wrong.
        change: What makes it so.
        verb: The command, called in the folder of the study.
        code: Its exit code.
        says: What must be in its output.
        finished: Whether a finished run stands in ../run.
    """

    name: str
    change: Change
    verb: str
    code: int
    says: tuple[str, ...]
    finished: bool = False


def cells(column: str, row: int, *values: object) -> Change:
    """Puts `values` into `column`, from row `row` of the file on (its header is row 1)."""

    def change(scene: Scene) -> None:
        frame = pd.read_csv(scene.study / "clinical.csv").astype({column: object})
        frame.loc[row - 2 : row - 3 + len(values), column] = list(values)
        frame.to_csv(scene.study / "clinical.csv", index=False)

    return change


def whole_column(column: str, make: Callable[[pd.DataFrame], object]) -> Change:
    """Puts what `make` makes of the table into all rows of `column`."""

    def change(scene: Scene) -> None:
        frame = pd.read_csv(scene.study / "clinical.csv")
        frame.assign(**{column: make(frame)}).to_csv(scene.study / "clinical.csv", index=False)

    return change


def text(old: str, new: str) -> Change:
    """Replaces `old` in the study file by `new`."""

    def change(scene: Scene) -> None:
        before = (scene.study / "study.toml").read_text(encoding="utf-8")
        assert old in before
        (scene.study / "study.toml").write_text(before.replace(old, new, 1), encoding="utf-8")

    return change


def file(name: str, content: bytes | Callable[[bytes], bytes]) -> Change:
    """Writes a file, or changes its bytes; the name starts from the folder of the study."""

    def change(scene: Scene) -> None:
        path = scene.study / name
        path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))

    return change


def all_of(*changes: Change) -> Change:
    """One change after the other."""
    return lambda scene: [change(scene) for change in changes]


def half(content: bytes) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def picture(name: str, size: int, seed: int = 0, brighter: int = 0) -> Change:
    """Writes a picture of coarse random blocks, `size` pixels wide."""

    def change(scene: Scene) -> None:
        blocks = np.random.default_rng(seed).integers(0, 200, (16, 16), dtype=np.uint8)
        pixels = np.kron(blocks, np.ones((size // 16, size // 16), dtype=np.uint8)) + np.uint8(brighter)
        Image.fromarray(pixels).save(scene.study / name)

    return change


def link(name: str, target: str) -> Change:
    """Puts a copy of `target` outside the study and a link to it inside."""

    def change(scene: Scene) -> None:
        outside = scene.study.parent / f"secret{Path(target).suffix}"
        outside.write_bytes((scene.study / target).read_bytes())
        (scene.study / name).unlink(missing_ok=True)
        (scene.study / name).symlink_to(outside)

    return change


def without(name: str, key: str) -> Change:
    """Takes `key` out of a json file."""
    return file(name, lambda content: json.dumps({k: v for k, v in json.loads(content).items() if k != key}).encode())


def full_disk(name: str) -> Change:
    """From now on the disk is full when `name` is written."""
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    return lambda scene: scene.patch.setattr("survlens.artifacts.atomic.os.replace", full)


def ctrl_c_after(epochs: int) -> Change:
    """Ctrl-C, pressed when this many epochs are done."""

    def interrupt(row: object) -> None:
        if getattr(row, "epoch", 0) >= epochs:
            raise KeyboardInterrupt

    def change(scene: Scene) -> None:
        from contextlib import nullcontext

        scene.patch.setattr("survlens.cli.run.watch", lambda name, count: nullcontext(interrupt))

    return change


def huge_png(edge: int) -> bytes:
    """A PNG of a few bytes whose header says `edge` x `edge` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def corrupt_jpeg(scene: Scene) -> None:
    """A JPEG that ends in the middle, named by row 6."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(scene.study / "images/scan.jpg", quality=95)
    file("images/scan.jpg", half)(scene)
    cells("image", 6, "images/scan.jpg")(scene)


def unfinished(scene: Scene) -> None:
    """Makes the finished run one that stopped in the training of its network."""
    path = scene.run / "progress.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["finished"] = [row for row in content["finished"] if row["model"] != "vae"]
    path.write_text(json.dumps(content), encoding="utf-8")


def without_risk(scene: Scene) -> None:
    """Takes the risks out of the predictions of the network."""
    path = scene.run / "predictions" / "vae.parquet"
    pd.read_parquet(path).drop(columns="risk").to_parquet(path)


FIT = "../run/models/vae/fold1-seed3"
WEIGHTS, MODEL, LATENT = f"{FIT}/weights.safetensors", f"{FIT}/model.json", f"{FIT}/latent.json"
PROGRESS = "../run/progress.json"
LAST = f"{FIT}/checkpoints/last.safetensors"


class _Trap:
    """Once unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (Path("opened"),)


PICKLE = pickle.dumps(_Trap())

TABLES = (
    Row("a column is missing", text('time = "months"', 'time = "month"'), CHECK, DATA,
        ("missing-column", "`time` must name a column", "'month' is not there", "Did you mean 'months'?")),
    Row("a time is negative", cells("months", 6, -2.0), CHECK, DATA,
        ("time-negative", "months, row 6", "times must be > 0; got -2.0", "Check the dates")),
    Row("a time is zero", cells("months", 6, 0), CHECK, DATA,
        ("time-zero", "months, row 6", "times must be > 0; got 0", "Set zero_times to 'drop' or 'smallest'")),
    Row("a time is missing", cells("months", 6, None), CHECK, DATA,
        ("time-missing", "months, row 6", "each row must have a time; got empty cells", "Fill in or remove")),
    Row("a time is no number", cells("months", 6, "3 years"), CHECK, DATA,
        ("time-not-numeric", "months, row 6", "times must be numbers; got '3 years'", "no units")),
    Row("all times are equal", whole_column("months", lambda frame: 12.0), CHECK, DATA,
        ("times-all-equal", "months", "times must differ between patients", "all are 12 months")),
    Row("an event is neither 0 nor 1", cells("died", 6, 2), CHECK, DATA,
        ("event-not-binary", "died, row 6", "events must be 0 or 1", "Say in event_values")),
    Row("an event is missing", cells("died", 6, None), CHECK, DATA,
        ("event-missing", "died, row 6", "each row must have an event", "Fill in or remove")),
    Row("nobody had the event", whole_column("died", lambda frame: 0), CHECK, DATA,
        ("no-events", "died", "two patients with an event are needed", "got 0 among 40 patients", "Check what")),
    Row("one patient had the event", all_of(whole_column("died", lambda frame: 0), cells("died", 6, 1)), CHECK, DATA,
        ("one-event", "died", "two patients with an event are needed", "got 1 among 40 patients", "Check what")),
    Row("one patient has two outcomes", cells("patient", 3, "p0"), CHECK, DATA,
        ("patient-two-outcomes", "patient, rows 2, 3", "must have one time and one event", "Correct them")),
    Row("one patient stands in two splits",
        all_of(cells("patient", 3, "p0"), whole_column("months", lambda frame: frame["months"].where(
            frame["patient"] != "p0", 5.0)), cells("died", 2, 1, 1)), CHECK, DATA,
        ("patient-in-two-splits", "side, rows 2, 3", "must stand in one part of the split", "Move them")),
    Row("a covariate has empty cells", cells("age", 6, None, None), CHECK, FINE,
        ("missing-values", "age, rows 6, 7", "2 of 40 values are missing; they are imputed")),
    Row("a covariate has empty cells, and is used", cells("age", 6, None, None), DRY_RUN, FINE, ("one step on image",)),
    Row("a covariate is no number", cells("age", 6, "old"), CHECK, DATA,
        ("not-numeric", "age, row 6", "must hold numbers; got 'old'", "list it as categorical")),
    Row("a covariate is constant", whole_column("age", lambda frame: 60), CHECK, FINE,
        ("constant", "age", "has one value in all rows (60)", "Leave it out")),
    Row("a covariate gives the time away", whole_column("age", lambda frame: frame["months"] * 30), CHECK, FINE,
        ("leaks-time", "age", "orders patients as the time does", "Leave it out")),
    Row("a covariate gives the event away", whole_column("age", lambda frame: frame["died"]), CHECK, FINE,
        ("leaks-event", "age", "tells who had the event (AUC 1.000)", "Leave it out")),
    Row("too many covariates for the events",
        whole_column("died", lambda frame: [1] * 5 + [0] * 35), CHECK, FINE,
        ("few-events-per-parameter", "got 5 events for 2 parameters", "Choose fewer covariates")),
    Row("a category that no training row has", cells("arm", 2, "c"), DRY_RUN, DATA,
        ("`arm` must be one of the levels seen in training, a, b; got 'c'", "Set unseen to 'as_missing'")),
)  # fmt: skip

IMAGES = (
    Row("an image is missing", cells("image", 6, "images/none.png"), CHECK, DATA,
        ("image-not-found", "image, row 6", "images/none.png", "does not exist")),
    Row("an image ends too early", file("images/4.png", half), CHECK, DATA,
        ("image-unreadable", "image, row 6", "images/4.png must be a whole PNG, JPEG or TIFF")),
    Row("a JPEG is corrupt", corrupt_jpeg, CHECK, DATA,
        ("image-unreadable", "image, row 6", "images/scan.jpg must be a whole PNG, JPEG or TIFF")),
    Row("a PNG says that it has 50,000 x 50,000 pixels", file("images/4.png", huge_png(50_000)), CHECK, DATA,
        ("image-unreadable", "image, row 6", "at most 64,000,000 pixels; got 2,500,000,000 pixels",
         "Cut it into tiles, shrink it")),
    Row("a text file is named .png", file("images/4.png", b"not a picture"), CHECK, DATA,
        ("image-unreadable", "image, row 6", "images/4.png must be a whole PNG, JPEG or TIFF")),
    Row("an image of another size", picture("images/4.png", 32), CHECK, FINE,
        ("several-sizes", "image, row 6", "mostly 8 x 8 (39 of 40)", "Set image_size")),
    Row("an image of another size, and it is used", picture("images/4.png", 32), DRY_RUN, FINE,
        ("one step on image (21, 1, 8, 8)",)),
    Row("one image stands under two patients", cells("image", 6, "images/5.png"), CHECK, DATA,
        ("duplicate-across-patients", "image, rows 6, 7", "one image stands under two patients", "Find out whose")),
    Row("two patients' images look the same",
        all_of(picture("images/4.png", 64), picture("images/5.png", 64, brighter=9)), CHECK, FINE,
        ("near-duplicate-across-patients", "image, rows 6, 7", "1 pair of images", "a patient may have two names")),
    Row("an image path climbs out", cells("image", 6, "../../secret.png"), CHECK, DATA,
        ("image-outside-root", "image, row 6", "../../secret.png", "leads out of it")),
    Row("an image path is absolute", cells("image", 6, "/etc/hostname"), CHECK, DATA,
        ("image-outside-root", "image, row 6", "/etc/hostname", "leads out of it")),
    Row("an image is a link that leads out", link("images/4.png", "images/4.png"), CHECK, DATA,
        ("image-outside-root", "image, row 6", "images/4.png", "leads out of it")),
    Row("a run of data that failed the check", cells("months", 6, -2.0), RUN, DATA,
        ("clinical.csv must pass its audit", "survlens check")),
)  # fmt: skip

STUDY_FILES = (
    Row("the study file is no TOML", text("[split]", "[split"), CHECK, USAGE,
        ("study.toml: must be valid TOML", "line 17", "https://toml.io")),
    Row("a key is unknown", text("image_size = 8", "image_sizes = 8"), CHECK, USAGE,
        ("study.toml, line 14", "`data.image_sizes` must be a known", 'Did you mean "image_size"?')),
    Row("a value has another type", text("seed = 3", 'seed = "three"'), CHECK, USAGE,
        ("study.toml, line 3", "`study.seed` must be a whole number", "a text in quotes")),
    Row("a value is no choice", text('kind = "column"', 'kind = "colum"'), CHECK, USAGE,
        ("study.toml, line 18", "`split.kind` must be one of", 'Did you mean "column"?')),
    Row("a model takes a column that is not there", text('name = "vae"',
        'name = "few"\nkind = "cox"\ncolumns = ["agee"]\n[[model]]\nname = "vae"'), CHECK, USAGE,
        ("study.toml, line 25", "`model.few.columns.agee` must be a known covariate", 'Did you mean "age"?')),
    Row("a pattern of columns matches none", text('numeric = ["age"]', 'numeric = ["age", "texture_*"]'), CHECK, USAGE,
        ("study.toml, line 12", "`data.numeric.texture_*` must be a known column of the table")),
    Row("images of a patient are pooled by a model of the table", text('kind = "cox_vae"\nlatent = 2',
        'kind = "pmf"\npooling = "mean"'), CHECK, USAGE,
        ("study.toml, line 25", '`model.vae.pooling` must be "none" for a model that looks at no image')),
    Row("folds of sites without a site", text('kind = "column"\ncolumn = "side"\ntest_values = ["test"]',
        'kind = "site_folds"'), CHECK, USAGE,
        ("`data.site` must be given for [split] kind = \"site_folds\"", 'Add site = "COLUMN" to [data]')),
    Row("the table climbs out", text('"clinical.csv"', '"../../clinical.csv"'), CHECK, USAGE,
        ("study.toml, line 6", "`data.table` must stay inside the data root", "set data.root")),
    Row("the table has an absolute path", text('"clinical.csv"', '"/etc/hostname"'), CHECK, USAGE,
        ("study.toml, line 6", "`data.table` must be relative to the data root", "set data.root")),
    Row("the table is a link that leads out", link("clinical.csv", "clinical.csv"), CHECK, USAGE,
        ("study.toml, line 6", "`data.table` must stay inside the data root", "set data.root")),
)  # fmt: skip

RUNS = (
    Row("the run folder holds a run", lambda scene: None, RUN, USAGE,
        ("`out` must be a new or empty folder", "--resume", "--overwrite", "another --out"), finished=True),
    Row("a run goes on with another image size", text("image_size = 8", "image_size = 16"), RESUME, USAGE,
        ("`--resume` must be given the study of the run", "other settings", "another --out"), finished=True),
    Row("saved weights end too early", file(WEIGHTS, half), RESUME, FAILURE,
        ("weights.safetensors", "must be a complete safetensors file", "Copy the file again", "Or remove",
         "progress.json and go on with --resume to fit anew"), finished=True),
    Row("saved weights are a pickle", file(WEIGHTS, PICKLE), RESUME, FAILURE,
        ("weights.safetensors", "got a Python pickle", "It was not opened"), finished=True),
    Row("a checkpoint ends too early", all_of(unfinished, file(LAST, half)), RESUME, FAILURE,
        ("last.safetensors", "must be a complete safetensors file", "Copy the file again", "Or remove",
         "to train this model from its start"), finished=True),
    Row("a checkpoint is a pickle", all_of(unfinished, file(LAST, PICKLE)), RESUME, FAILURE,
        ("last.safetensors", "got a Python pickle", "It was not opened", "Or remove"), finished=True),
    Row("progress.json lacks a part", without("../run/progress.json", "finished"), RESUME, FAILURE,
        ("progress.json` must list the finished fits; got something else ('finished')", "Remove it to fit all anew"),
        finished=True),
    Row("predictions end too early", file("../run/predictions/vae.parquet", half), EVALUATE, FAILURE,
        ("vae.parquet", "must be a whole table", "Write it again"), finished=True),
    Row("predictions lack a column", without_risk, EVALUATE, FAILURE,
        ("vae.parquet` must hold predictions", "without risk", "survlens run STUDY.toml"), finished=True),
    Row("resolved.json lacks a part", without("../run/resolved.json", "data"), EVALUATE, FAILURE,
        ("resolved.json must hold the settings of a run", "Run the study again"), finished=True),
    Row("resolved.json ends too early", file("../run/resolved.json", half), EVALUATE, FAILURE,
        ("resolved.json", "must be a whole json file"), finished=True),
    Row("metrics.json ends too early", file("../run/metrics.json", half), REPORT, FAILURE,
        ("`metrics.json` must be json text", "survlens evaluate"), finished=True),
    Row("metrics.json lacks a part", without("../run/metrics.json", "models"), REPORT, FAILURE,
        ("`models` in metrics.json must be there", "survlens evaluate"), finished=True),
    Row("traversal.npz ends too early", file("../run/explanations/vae/traversal.npz", half), REPORT, FAILURE,
        ("`traversal.npz` must hold images", "survlens run STUDY.toml --resume"), finished=True),
    Row("latent.json holds something else", file(LATENT, b"{}"), RESUME, FAILURE,
        ("latent.json` must hold mean_kl", "Or remove",
         "progress.json and go on with --resume to fit anew"), finished=True),
    Row("model.json ends too early", file(MODEL, half), RESUME, FAILURE,
        ("model.json in fold1-seed3/ is damaged", "Or remove",
         "progress.json and go on with --resume to fit anew"), finished=True),
    Row("the folder is no run", lambda scene: (scene.run / "note").mkdir(parents=True), EVALUATE, USAGE,
        ("`path` must be the folder of a run", "Run `survlens run` first")),
    Row("the disk is full when a run starts", full_disk("resolved.json"), RUN, FAILURE,
        ("resolved.json", "the disk is full", "Nothing was written", "Free some space")),
    Row("the disk is full when a checkpoint is written", full_disk("last.safetensors"), RUN, FAILURE,
        ("last.safetensors", "the disk is full", "Free some space")),
    Row("the disk is full when scores are written", full_disk("metrics.json"), EVALUATE, FAILURE,
        ("metrics.json", "the disk is full", "The previous file is untouched", "Free some space"), finished=True),
    Row("Ctrl-C in training", ctrl_c_after(1), RUN, INTERRUPTED,
        ("interrupted.", "Go on with the same command and --resume")),
)  # fmt: skip

SECTIONS = {"The table": TABLES, "Images": IMAGES, "The study file": STUDY_FILES, "Run folders": RUNS}
ROWS = tuple(row for rows in SECTIONS.values() for row in rows)


def page_table(rows: tuple[Row, ...]) -> str:
    """The rows as a table of the page docs/bad_inputs.md."""
    lines = ["| what is wrong | command | exit code | what survlens says |", "|---|---|---|---|"]
    for row in rows:
        verb = row.verb.replace("study.toml", "STUDY.toml").replace(" --out ../run", "").replace("../run", "RUN")
        says = " … ".join(row.says).replace("`", "").replace("|", "/")
        lines.append(f"| {row.name} | `{verb}` | {row.code} | `{says}` |")
    return "\n".join(lines) + "\n"
