"""The config loader: whatever stands in a file or behind --set, an Experiment or a ConfigError comes of it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcls.config.key_table import config_table
from imgcls.config.load import load_experiment
from imgcls.errors import ConfigError
from imgcls.text import printable
from tests.fuzz.profiles import FUZZ, damaged, no_hang_no_warning

REAL = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))]
KEYS = [key for key, _, _ in config_table()]
TABLES = sorted({key.rpartition(".")[0] for key in KEYS} - {""})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("experiments") / "given.toml"


def check(path, content, overrides=()):
    """An Experiment that its own file gives again, or one error that names the file or the option."""
    path.write_bytes(content)
    with no_hang_no_warning():
        try:
            outcome = load_experiment(path, overrides)
        except ConfigError as error:
            outcome = str(error)
        if isinstance(outcome, str):
            assert all(line.startswith((f"{path}: ", "--set")) for line in outcome.split("\n"))
            assert len(outcome) < 100_000
            printable(outcome).encode()
            return
        path.write_text(outcome.to_toml(), encoding="utf-8")
        assert load_experiment(path) == outcome
        assert load_experiment(path).params() == outcome.params()


@FUZZ
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_text(path, content):
    check(path, content)


@FUZZ
@given(damaged(REAL))
def test_damaged_experiments(path, content):
    check(path, content)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["auto", 10**400])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "low", "high", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def toml(value):
    """TOML of a value; None, which TOML lacks, is a date."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if value is None:
        return "1979-05-27"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


TREES = st.dictionaries(
    st.sampled_from([*KEYS, *TABLES, *(f"search.space.{json.dumps(key)}" for key in KEYS), "name", "other"]),
    VALUES,
    max_size=4,
)


@FUZZ
@given(TREES)
def test_any_tree(path, tree):
    check(path, "\n".join(f"{key} = {toml(value)}" for key, value in tree.items()).encode("utf-8", "surrogatepass"))


ARGUMENT = st.text(st.characters(exclude_characters="\0"), max_size=60)
"""What a command line can carry, halves of characters included."""


@FUZZ
@given(
    st.lists(
        st.builds("{}={}".format, st.sampled_from(KEYS) | ARGUMENT, ARGUMENT | VALUES.map(toml)) | ARGUMENT, max_size=3
    )
)
def test_any_override(path, overrides):
    check(path, b'name = "n"\n[train]\nepochs = 3\n', overrides)
