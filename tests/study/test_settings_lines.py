import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survlens.study.toml_lines import key_lines, line_of

TEXT = '''\
# a comment
top = 1

[study]   # a header
name = "a # b"
notes = """
[data]
seed = 5
"""
"quoted key" = 2
nested.inner = 3

[data]
numeric = [
  "age",  # with a comment ]
  "sex",
]
ordered = { grade = ["I", "II"], stage = ["a"] }

[[model]]
name = "one"
  [model.fit]
  epochs = 3

[[model]]
name = "two"
fit.epochs = 4
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("top",), 2),
        (("study",), 4),
        (("study", "name"), 5),
        (("study", "notes"), 6),
        (("study", "quoted key"), 10),
        (("study", "nested", "inner"), 11),
        (("data", "numeric"), 14),
        (("data", "ordered", "stage"), 18),
        (("model", 0), 20),
        (("model", 0, "name"), 21),
        (("model", 0, "fit"), 22),
        (("model", 0, "fit", "epochs"), 23),
        (("model", 1, "name"), 26),
        (("model", 1, "fit", "epochs"), 27),
    ],
)
def test_each_key_is_found_on_its_line(key, line):
    assert key_lines(TEXT)[key] == line


def test_a_key_that_is_not_there_gets_the_line_of_the_table_around_it():
    lines = key_lines(TEXT)
    assert line_of(lines, ("data", "numbers")) == 13
    assert line_of(lines, ("split", "kind")) is None
    assert ("study", "seed") not in lines, "text inside a multi-line string is no key"


NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
VALUES = st.sampled_from(["1", '"x"', '"a # [b]"', "[1,\n 2]", '"""\nc = 1\n[d]\n"""', "{ k = 1 }", "2020-01-01"])


@given(tables=st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), max_size=4))
@settings(max_examples=25, deadline=None)
def test_the_line_of_every_key_starts_with_that_key(tables):
    text = "".join(
        f"[{table}]\n" + "".join(f"{name} = {value}\n\n" for name, value in keys.items())
        for table, keys in tables.items()
    )
    rows, lines = text.split("\n"), key_lines(text)
    for table, keys in tomllib.loads(text).items():
        assert rows[lines[table,] - 1] == f"[{table}]"
        for name in keys:
            assert rows[lines[table, name] - 1].startswith(f"{name} = ")
