"""`survlens init` and `survlens check`."""

import json
import tomllib

import pandas as pd
import pytest

DATA_ERROR, USAGE = 3, 2


def test_init_writes_a_study_that_check_accepts(survlens, study):
    study.unlink()
    done = survlens("init", study.parent, "--from", study.parent / "clinical.csv")
    assert done.exit_code == 0, done.output
    written = tomllib.loads(study.read_text(encoding="utf-8"))
    assert written["evaluation"]["primary"] == "fusion"
    said = written["data"]
    assert (said["time"], said["event"], said["unit"]) == ("months", "died", "months")
    assert (said["patient"], said["image"], said["site"]) == ("patient", "image", "hospital")
    assert said["numeric"] == ["age"]
    assert said["categorical"] == ["arm"]
    assert survlens("check", study).exit_code == 0


def test_init_without_a_table_writes_placeholders_that_say_so(survlens, tmp_path):
    done = survlens("init", tmp_path / "new")
    assert done.exit_code == 0
    assert "placeholder" in done.output
    assert "COLUMN" in (tmp_path / "new" / "study.toml").read_text(encoding="utf-8")


def test_init_never_overwrites(survlens, study):
    before = study.read_bytes()
    done = survlens("init", study.parent, "--from", study.parent / "clinical.csv")
    assert done.exit_code == USAGE
    assert "must not hold a study.toml yet" in done.output
    assert study.read_bytes() == before


def test_init_refuses_a_table_outside_the_folder(survlens, study, tmp_path):
    done = survlens("init", tmp_path / "other", "--from", study.parent / "clinical.csv")
    assert done.exit_code == USAGE
    assert "must be a table inside FOLDER" in done.output
    assert not (tmp_path / "other").exists()


def test_an_event_in_codes_becomes_no_covariate(survlens, tmp_path):
    frame = pd.DataFrame({"months": [1.5, 2.5] * 30, "dead": [0, 1, 2] * 20, "age": [float(at) for at in range(60)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert survlens("init", tmp_path, "--from", tmp_path / "t.csv").exit_code == 0
    said = tomllib.loads((tmp_path / "study.toml").read_text(encoding="utf-8"))["data"]
    assert said["event"] == "COLUMN"
    assert said["numeric"] == ["age"]


def test_column_names_cannot_write_settings(survlens, tmp_path):
    names = ["time\n", 'x"]\n[evil]', "y\n# z", "died"]
    frame = pd.DataFrame({name: [f"{at}{name[:1]}" for at in range(40)] for name in names})
    frame["died"], frame["time\n"] = [0, 1] * 20, 1.5
    frame.to_parquet(tmp_path / "t.parquet")
    assert survlens("init", tmp_path, "--from", tmp_path / "t.parquet").exit_code == 0
    said = tomllib.loads((tmp_path / "study.toml").read_text(encoding="utf-8"))
    assert set(said) == {"study", "data", "split", "evaluation", "report"}


def test_check_of_good_data_ends_with_0(survlens, study):
    done = survlens("check", study)
    assert done.exit_code == 0, done.output
    assert "the data can be used" in done.output


@pytest.mark.parametrize(
    ("column", "value", "fragment"),
    [
        ("months", -1.0, "months"),
        ("months", None, "months"),
        ("died", 2, "died"),
        ("patient", None, "patient"),
        ("image", "images/none.png", "none.png"),
        ("image", "../../secret.png", "secret.png"),
    ],
)
def test_check_of_bad_data_ends_with_3_and_says_where(survlens, study, column, value, fragment):
    table = study.parent / "clinical.csv"
    frame = pd.read_csv(table).astype({column: object})
    frame.loc[4, column] = value
    frame.to_csv(table, index=False)
    done = survlens("check", study)
    assert done.exit_code == DATA_ERROR, done.output
    assert fragment in done.output
    assert "6" in done.output, "row 6 of the file is where it is wrong"
    assert survlens("run", study, "--out", study.parent / "run").exit_code == DATA_ERROR
    assert not (study.parent / "run").exists(), "nothing is written where the audit fails"


def test_check_as_json_is_json_alone(survlens, study):
    frame = pd.read_csv(study.parent / "clinical.csv")
    frame.loc[0, "months"] = -1
    frame.to_csv(study.parent / "clinical.csv", index=False)
    done = survlens("check", study, "--json")
    assert done.exit_code == DATA_ERROR
    content = json.loads(done.stdout)
    assert content["ok"] is False
    assert any(finding["column"] == "months" for finding in content["findings"])


def test_check_takes_a_bare_table(survlens, study):
    table = study.parent / "clinical.csv"
    guessed = survlens("check", table)
    named = survlens("check", table, "--time", "months", "--event", "died", "--patient", "patient", "--unit", "months")
    assert (guessed.exit_code, named.exit_code) == (0, 0), guessed.output + named.output


def test_check_asks_for_columns_that_it_cannot_guess(survlens, tmp_path):
    pd.DataFrame({"a": ["x", "y"], "b": ["u", "v"]}).to_csv(tmp_path / "t.csv", index=False)
    done = survlens("check", tmp_path / "t.csv")
    assert done.exit_code == USAGE
    assert "`--time` must name a column" in done.output


def test_column_options_belong_to_a_bare_table(survlens, study):
    assert survlens("check", study, "--time", "months").exit_code == USAGE
    assert survlens("check", study.parent / "clinical.csv", "--set", "study.seed=1").exit_code == USAGE


def test_check_of_a_missing_table_is_a_data_error(survlens, tmp_path):
    assert survlens("check", tmp_path / "none.csv").exit_code == DATA_ERROR
