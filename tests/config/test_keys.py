import os
import re
import shlex
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from imgcls.config.key_names import NOT_RECORDED, ONLY_REPORTED, value_keys
from imgcls.config.key_table import config_table
from imgcls.config.keys import AugmentConfig, DataConfig, Experiment, ModelConfig
from imgcls.config.load import load_experiment
from imgcls.config.ranges import Range
from imgcls.config.search_keys import SearchConfig
from imgcls.config.synonyms import OTHER_NAMES, key_called
from imgcls.config.toml import as_options, parse_override
from imgcls.config.train_keys import TrainConfig
from imgcls.errors import ConfigError
from imgcls.project import Project, find_experiment

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))


def load(tmp_path, text, *overrides, name="given.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_experiment(path, overrides)


def refusal(tmp_path, text, *overrides):
    """The message, less the file."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    lines = str(caught.value).split("\n")
    assert all(line.startswith((f"{tmp_path / 'given.toml'}: ", "--set: ")) for line in lines)
    return "\n".join(line.removeprefix(f"{tmp_path / 'given.toml'}: ") for line in lines)


# --- what a file means ---


def test_an_empty_file_is_all_defaults_under_the_name_of_the_file(tmp_path):
    assert load(tmp_path, "", name="some_cells-2.toml") == Experiment(name="some_cells-2")


def test_the_example_of_the_design_loads(tmp_path):
    experiment = load(
        tmp_path,
        """
        name = "solar_cells"
        [data]
        source = "elpv"
        image_size = 64
        [augment]
        random_resized_crop = [0.6, 1.0]
        [train]
        epochs = 15
        lr = 3e-3
        threads = 2
        [search.space]
        "train.lr" = { low = 1e-4, high = 1e-2, log = true }
        "train.warmup_epochs" = { low = 0, high = 3 }
        "model.depth" = [10, 18, 34]
        """,
    )
    assert experiment.train == TrainConfig(epochs=15, lr=3e-3, threads=2)
    assert experiment.search.space == {
        "train.lr": Range(low=1e-4, high=1e-2, log=True),
        "train.warmup_epochs": Range(low=0, high=3),
        "model.depth": (10, 18, 34),
    }
    assert experiment.search.space["train.warmup_epochs"].whole
    assert not experiment.search.space["train.lr"].whole


def test_numbers_take_the_type_of_their_key(tmp_path):
    experiment = load(
        tmp_path,
        """
        [data]
        mean = [0]
        [train]
        lr = 1
        [search.space]
        "train.weight_decay" = { low = 0, high = 1 }
        "train.label_smoothing" = { low = 0, high = 0.5, step = 0.1 }
        "augment.rotation" = [0, 10, 20.5]
        "train.batch_size" = { low = 32, high = 64, step = 32 }
        """,
    )
    assert repr(experiment.train.lr) == "1.0"
    assert repr(experiment.data.mean) == "(0.0,)"
    space = experiment.search.space
    assert repr(space["train.weight_decay"]) == "Range(low=0.0, high=1.0, log=False, step=None)"
    assert not space["train.weight_decay"].whole  # else only 0 and 1 would be tried
    assert repr(space["augment.rotation"]) == "(0.0, 10.0, 20.5)"
    assert repr(space["train.batch_size"]) == "Range(low=32, high=64, log=False, step=32)"


def test_params_are_every_value_under_its_dotted_name_as_a_string():
    experiment = Experiment(
        name="n",
        data=DataConfig(mean=(0.5,), path='a "b"'),
        search=SearchConfig(space={"train.lr": Range(low=1e-4, high=1e-2, log=True), "model.depth": (8, 14)}),
    )
    params = experiment.params()
    keys = [key for key, _, _ in config_table() if key not in NOT_RECORDED]
    keys[keys.index("search.space") : keys.index("search.space") + 1] = [
        "search.space.train.lr",
        "search.space.model.depth",
    ]
    assert list(params) == ["name", *keys]
    assert params == params | {
        "name": "n",
        "data.path": 'a "b"',
        "data.mean": "[0.5]",
        "data.skip_unreadable": "false",
        "augment.random_resized_crop": "[1.0, 1.0]",
        "train.lr": "0.001",
        "train.epochs": "30",
        "model.weights": "",
        "search.space.train.lr": "{ low = 0.0001, high = 0.01, log = true }",
        "search.space.model.depth": "[8, 14]",
    }


@pytest.mark.parametrize("section", [DataConfig, ModelConfig, AugmentConfig, TrainConfig, Range, SearchConfig])
def test_every_key_has_a_docstring(section: type[BaseModel]):
    assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_the_table_of_keys_gives_defaults_as_a_file_has_them(tmp_path):
    lines = [f"{key} = {default}" for key, default, _ in config_table()]
    assert load(tmp_path, "\n".join(lines), name="n.toml") == Experiment(name="n")


# --- the record of it feeds a new run ---

NUMBERS = st.floats(min_value=1e-12, max_value=1e12, allow_nan=False)
SHARES = st.floats(min_value=0.0, max_value=1.0)
HOSTILE = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("\"'\\\n\r\t\x00\x1b\x7f\x85  #=[]{}é漢😀")
)
SEEDS = st.integers(0, 2**63 - 1)


def ordered(low, high):
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: tuple(sorted(pair)))


SPACES = st.fixed_dictionaries(
    {},
    optional={
        "train.lr": st.floats(1e-9, 1.0).map(lambda low: Range(low=low, high=2 * low, log=True)),
        "train.batch_size": st.integers(2, 9).map(lambda low: Range(low=low, high=low + 6, step=3)),
        "model.weights": st.lists(HOSTILE, min_size=1, unique=True).map(tuple),
        "train.deterministic": st.just((True, False)),
        "augment.mixup": st.lists(NUMBERS, min_size=1, unique=True).map(tuple),
        "model.depth": st.just((8, 14)),
    },
)

EXPERIMENT = st.builds(
    Experiment,
    name=st.text(string.ascii_letters + string.digits + "._-", max_size=99).map(lambda rest: "a" + rest),
    data=st.builds(
        DataConfig,
        source=HOSTILE,
        path=HOSTILE,
        channels=st.sampled_from(["auto", 1, 3]),
        val_fraction=st.floats(0.0, 1.0, exclude_max=True),
        seed=SEEDS,
        groups=HOSTILE.map(re.escape) | HOSTILE.map(lambda name: name + ".csv"),
        allow_leaks=st.booleans(),
        skip_unreadable=st.booleans(),
        mean=st.just("auto") | st.lists(SHARES, min_size=1, max_size=3).map(tuple),
        std=st.just("auto") | st.lists(st.floats(0.0, 1.0, exclude_min=True), min_size=1, max_size=3).map(tuple),
    ),
    model=st.builds(ModelConfig, weights=HOSTILE, width=st.integers(0, 1024), dropout=st.floats(0, 0.99)),
    augment=st.builds(
        AugmentConfig,
        random_resized_crop=ordered(1e-9, 1.0),
        aspect_ratio=ordered(1e-9, 1e9),
        rotation=st.floats(0.0, 180.0),
        shift=SHARES,
        saturation=SHARES,
        hue=st.floats(0.0, 0.5),
        cutout=SHARES,
        mixup=NUMBERS | st.just(0.0),
        cutmix=NUMBERS | st.just(0.0),
    ),
    train=st.builds(
        TrainConfig,
        epochs=st.integers(2, 10**12),
        lr=NUMBERS,
        weight_decay=NUMBERS,
        seed=SEEDS,
        device=st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:17"]),
    ),
    search=st.builds(
        SearchConfig,
        timeout=NUMBERS,
        pruner_warmup_epochs=st.just("auto") | st.integers(0, 99),
        space=SPACES,
    ),
)


@settings(deadline=None)
@given(EXPERIMENT)
def test_to_toml_loads_into_an_equal_experiment(tmp_path_factory, experiment):
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    path.write_text(experiment.to_toml(), encoding="utf-8")
    again = load_experiment(path)
    assert again == experiment
    assert again.params() == experiment.params()
    assert again.config_hash() == experiment.config_hash()
    assert again.to_toml() == experiment.to_toml()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_shipped_experiments_round_trip(tmp_path, path):
    experiment = load_experiment(path)
    assert load(tmp_path, experiment.to_toml()) == experiment


def test_the_hash_ignores_spelling_and_order(tmp_path):
    one = load(
        tmp_path,
        """
        name = "n"
        [train]
        lr = 1
        epochs = 4
        [search.space]
        "train.weight_decay" = { low = 0, high = 1 }
        "augment.mixup" = [0, 1]
        """,
    )
    other = load(
        tmp_path,
        """
        search.space."augment.mixup" = [0.0, 1e0]
        search.space."train.weight_decay" = { high = 1.0, log = false, low = 0.0 }
        train = { epochs = 4, lr = 1.0e0, warmup_epochs = 1 }
        name = "n"
        """,
    )
    assert one.config_hash() == other.config_hash()
    assert len(one.config_hash()) == 16


def test_the_hash_sees_every_key():
    plain = Experiment(name="n")
    changed = {
        plain.replace({key: value}).config_hash()
        for key, value in {
            "name": "m", "data.seed": 1, "model.depth": 8, "augment.mixup": 0.1, "train.lr": 2e-3,
            "train.deterministic": False, "search.seed": 1, "search.space.train.lr": [1e-3],
        }.items()
    }  # fmt: skip
    assert len(changed) == 8
    assert plain.config_hash() not in changed


def test_the_hash_can_leave_keys_out():
    plain = Experiment(name="n")
    more = plain.replace({"search.trials": 99, "search.workers": 2})
    assert plain.config_hash() != more.config_hash()
    without = ("search.trials", "search.workers")
    assert plain.config_hash(without=without) == more.config_hash(without=without)


def test_keys_that_came_later_change_no_digest_until_they_are_set():
    """So what versions without them began goes on; the digest is that of such a version."""
    plain = Experiment(name="n")
    assert plain.config_hash() == "f5841c081d9ec84d"
    assert plain.replace({key: plain.params()[key] for key in ("train.loss", "train.sampling")}) == plain
    other = {
        "train.loss": "focal", "train.sampling": "balanced", "search.warm_start": "auto", "train.average_epochs": 2,
        "data.test_views": "flips", "train.optimizer": "sgd", "train.momentum": 0.8, "train.backbone_lr_scale": 0.1,
        "train.layer_decay": 0.7,
    }  # fmt: skip
    for key, value in other.items():
        assert plain.replace({key: value}).config_hash() != plain.config_hash()


@pytest.mark.parametrize(
    ("settings", "remedy", "words"),
    [
        ("class_weights=auto sampling=balanced", "train.class_weights=none", 'train.sampling = "balanced"'),
        ("class_weights=auto loss=logit_adjusted", "train.class_weights=none", 'train.loss = "logit_adjusted"'),
        ("sampling=balanced loss=logit_adjusted", "train.sampling=natural", 'train.loss = "logit_adjusted"'),
    ],
)
def test_uneven_classes_are_made_up_for_once(settings, remedy, words):
    values = dict(f"train.{setting}".split("=") for setting in settings.split())
    with pytest.raises(ConfigError, match="twice") as refused:
        Experiment(name="n").replace(values)
    assert words in str(refused.value) and f"--set {remedy}" in str(refused.value)
    key, value = remedy.split("=")
    Experiment(name="n").replace(values | {key: value})
    with pytest.raises(ConfigError, match="twice"):
        Experiment(name="n").replace(values | {"train.label_smoothing": 0.0, "augment.mixup": 0.2})


# --- what is refused, and how ---

LR = '[search.space]\n"train.lr" = '

BAD = {
    # unknown keys
    "train.lrr = 4": "train.lrr = 4: unknown key; did you mean 'train.lr'?",
    "lr = 4": "lr = 4: unknown key; did you mean 'train.lr'?",
    "seed = 1": "seed = 1: unknown key; did you mean 'data.seed', 'train.seed' or 'search.seed'?",
    "model.epochs = 4": "model.epochs = 4: unknown key; did you mean 'train.epochs'?",
    "[trian]\nlr = 1.0": "trian: unknown key; did you mean 'train'?",
    'train.colour = "red"': 'train.colour = "red": unknown key',
    '"train.lr" = 1.0': "train.lr = 1.0: write it without quotes, or under its table",
    # wrong types
    'train.lr = "x"': 'train.lr = "x": must be a number',
    "train.lr = true": "train.lr = true: must be a number",
    "train.epochs = 1.5": "train.epochs = 1.5: must be a whole number",
    "train.epochs = 15.0": "train.epochs = 15.0: must be a whole number",
    'train.epochs = "15"': 'train.epochs = "15": must be a whole number',
    "train.epochs = true": "train.epochs = true: must be a whole number",
    "train.deterministic = 1": "train.deterministic = 1: must be true or false",
    'train.deterministic = "false"': 'train.deterministic = "false": must be true or false',
    "data.path = 2024": "data.path = 2024: must be text in quotes",
    "data.path = 2024-01-31": "data.path = 2024-01-31: no key takes a date; put text in quotes",
    "data.mean = [0.5, 07:32:00]": "data.mean = 07:32:00: no key takes a time; put text in quotes",
    "name = 5": "name = 5: must be text in quotes",
    "train = 5": "train = 5: must be a table",
    "augment = [1]": "augment = [1]: must be a table",
    "train.lr = { low = 1 }": "train.lr: must be a number",
    # impossible values
    'data.groups = "p(\\\\d"': 'data.groups = "p(\\\\d": is neither the name of a .csv nor a regular expression: '
    "missing ), unterminated subpattern at position 1",
    "train.batch_size = 1": "train.batch_size = 1: must be at least 2",
    "train.lr = 0": "train.lr = 0: must be greater than 0.0",
    "train.lr = inf": "train.lr = inf: must be finite",
    "train.lr = -nan": "train.lr = nan: must be finite",
    "train.label_smoothing = 1.0": "train.label_smoothing = 1.0: must be less than 1.0",
    "train.seed = -1": "train.seed = -1: must be at least 0",
    "train.seed = 9223372036854775808": "train.seed = 9223372036854775808: must be less than 9223372036854775808",
    "data.image_size = 4096": "data.image_size = 4096: must be at most 2048",
    "data.channels = 2": 'data.channels = 2: must be "auto", 1 or 3',
    "data.channels = true": 'data.channels = true: must be "auto", 1 or 3',
    "data.channels = 1.0": 'data.channels = 1.0: must be "auto", 1 or 3',
    'model.stem = "smal"': 'model.stem = "smal": must be "auto", "standard" or "small"; did you mean \'small\'?',
    'search.metric = "accuracy"': 'search.metric = "accuracy": must be "val/accuracy", "val/balanced_accuracy", '
    '"val/macro_f1", "val/auroc" or "val/loss"; '
    "did you mean 'val/accuracy'?",
    'train.device = "gpu"': 'train.device = "gpu": must be "auto", "cpu", "cuda", "cuda:N" or "mps"',
    'train.device = "cuda:٣"': 'train.device = "cuda:٣": must be "auto", "cpu", "cuda", "cuda:N" or "mps"',
    'name = "a b"': 'name = "a b": must be up to 100 letters, digits, dots, underscores and hyphens, '
    "the first a letter or digit",
    'name = "x\\n"': 'name = "x\\n": must be up to 100 letters, digits, dots, underscores and hyphens, '
    "the first a letter or digit",
    "augment.random_resized_crop = [0.5, 2]": "augment.random_resized_crop = [0.5, 2]: "
    "must be [low, high] with 0 < low <= high <= 1",
    "augment.aspect_ratio = [2, 1]": "augment.aspect_ratio = [2, 1]: must be [low, high] with 0 < low <= high",
    "augment.random_resized_crop = [0.5]": "augment.random_resized_crop = [0.5]: item 2 is missing",
    "augment.random_resized_crop = [0.5, 1, 1]": "augment.random_resized_crop = [0.5, 1, 1]: must have 2 items",
    'augment.random_resized_crop = ["a", 1]': 'augment.random_resized_crop = ["a", 1]: item 1 must be a number',
    "augment.random_resized_crop = 0.5": "augment.random_resized_crop = 0.5: must be a list",
    "augment.shift = 1.5": "augment.shift = 1.5: must be at most 1.0",
    "augment.shift = -0.1": "augment.shift = -0.1: must be at least 0.0",
    "augment.saturation = 1.1": "augment.saturation = 1.1: must be at most 1.0",
    "augment.saturation = -1": "augment.saturation = -1: must be at least 0.0",
    "augment.hue = 0.6": "augment.hue = 0.6: must be at most 0.5",
    "augment.hue = -0.1": "augment.hue = -0.1: must be at least 0.0",
    "augment.cutout = 16": "augment.cutout = 16: must be at most 1.0",
    "augment.cutout = true": "augment.cutout = true: must be a number",
    "augment.cutmix = -1.0": "augment.cutmix = -1.0: must be at least 0.0",
    "augment.cutmix = inf": "augment.cutmix = inf: must be finite",
    "train.warmup_epochs = 30": "train.warmup_epochs = 30: does not end within train.epochs = 30; "
    "train for longer, or add --set train.warmup_epochs=1",
    "train.epochs = 1\ntrain.warmup_epochs = 1": "train.warmup_epochs = 1: does not end within train.epochs = 1; "
    "train for longer, or add --set train.warmup_epochs=0",
    "train.freeze_epochs = 30": "train.freeze_epochs = 30: does not end within train.epochs = 30; train for longer, or "
    "add --set train.freeze_epochs=29",
    "train.freeze_epochs = 2": "train.freeze_epochs = 2 would freeze random weights, because model.weights is empty; "
    "name the weights to start from, or add --set train.freeze_epochs=0",
    "train.layer_decay = 0": "train.layer_decay = 0: must be greater than 0.0",
    "train.backbone_lr_scale = 1.5": "train.backbone_lr_scale = 1.5: must be at most 1.0",
    "train.momentum = 1": "train.momentum = 1: must be less than 1.0",
    "train.layer_decay = 0.5\ntrain.head_only = true": "train.head_only = true: trains nothing before the last layer, "
    "so train.layer_decay = 0.5 would do nothing; add --set train.layer_decay=1.0",
    'train.optimizer = "adam"': 'train.optimizer = "adam": must be "adamw" or "sgd"; did you mean \'adamw\'?',
    # one line where pydantic has one for each member of a union
    'data.mean = [1, "a"]': 'data.mean = [1, "a"]: item 2 must be a number',
    "data.mean = [0.5, 2.0]": "data.mean = [0.5, 2.0]: item 2 must be at most 1.0",
    "data.mean = 5": 'data.mean = 5: must be "auto" or a list',
    'data.mean = "aut"': 'data.mean = "aut": must be "auto" or a list; did you mean \'auto\'?',
    "data.mean = []": "data.mean = []: must not be empty",
    "data.std = [0.0]": "data.std = [0.0]: item 1 must be greater than 0.0",
    "search.pruner_warmup_epochs = -1": 'search.pruner_warmup_epochs = -1: must be at least 0 or "auto"',
    "search.workers = 0": 'search.workers = 0: must be at least 1 or "auto"',
    "train.threads = 2000": 'train.threads = 2000: must be at most 1024 or "auto"',
    'train.threads = "atuo"': 'train.threads = "atuo": must be "auto" or a whole number; did you mean \'auto\'?',
    'search.pruner_warmup_epochs = "never"': 'search.pruner_warmup_epochs = "never": must be "auto" or a whole number',
    # the search space
    "search.space = 3": "search.space = 3: must be a table",
    LR + "5": "search.space.train.lr = 5: must be a table or a list",
    LR + "[]": "search.space.train.lr = []: must not be empty",
    LR + "[[1]]": "search.space.train.lr = [[1]]: item 1 must be true or false, a number or text in quotes",
    LR + "[1, 1.0]": "search.space.train.lr = [1, 1.0]: names a value twice",
    LR + "[true]": "search.space.train.lr = true: must be a number",
    LR + "{ low = 1, hig = 2 }": "search.space.train.lr.hig = 2: unknown key; "
    "did you mean 'search.space.train.lr.high'?",
    LR + "{ low = 1 }": "search.space.train.lr.high: is missing",
    LR + '{ low = 1, high = "a" }': 'search.space.train.lr.high = "a": must be a number',
    LR + "{ low = nan, high = 1 }": "search.space.train.lr.low = nan: must be finite",
    LR + "{ low = 0, high = 1 }": "search.space.train.lr.low = 0: must be greater than 0.0",
    LR + "{ low = 2, high = 1 }": "search.space.train.lr: low = 2 must be less than high = 1",
    LR + "{ low = 1, high = 2, log = true, step = 1 }": "search.space.train.lr: log = true needs low > 0 and no step",
    LR + "{ low = 1, high = 2, step = 0 }": "search.space.train.lr: step = 0 must be positive",
    LR + "{ low = 0.1, high = 0.5, step = 0.3 }": "search.space.train.lr: high = 0.5 must be low = 0.1 and a whole "
    "number of steps of 0.3",
    '[search.space]\n"train.epochs" = { low = 1.0, high = 3 }': "search.space.train.epochs.low = 1.0: "
    "must be a whole number",
    '[search.space]\n"train.batch_size" = { low = 4, high = 8, step = 2.0 }': "search.space.train.batch_size.step "
    "= 2.0: must be a whole number",
    '[search.space]\n"model.stem" = ["small", "big"]': 'search.space.model.stem = "big": '
    'must be "auto", "standard" or "small"',
    "[search.space]\ntrain.lr = { low = 1e-4, high = 1e-2 }": "search.space.train.lr: "
    'one key of [search.space], so write it in quotes: "train.lr" = …',
    '[search.space]\n"train.lrr" = [1]': "search.space.train.lrr: unknown key; did you mean 'train.lr'?",
    "[search.space]\nlr = [1]": "search.space.lr: unknown key; did you mean 'train.lr'?",
    '[search.space]\n"data.seed" = [1]': "search.space.data.seed: cannot be searched; data.image_size, "
    "data.test_views and what is in [model], [augment] and [train] can",
    '[search.space]\n"augment.random_resized_crop" = [[0.25, 1.0], [0.5, 1.0]]': "search.space.augment."
    "random_resized_crop = [[0.25, 1.0], [0.5, 1.0]]: cannot be searched, because each of its values is a list; sweep "
    "once for each, with --set augment.random_resized_crop=…",
    '[search.space]\n"augment.random_resized_crop" = { low = 0.25, high = 1.0 }': "search.space.augment."
    "random_resized_crop: cannot be searched, because each of its values is a list; sweep once for each, with "
    "--set augment.random_resized_crop=…",
    '[search.space]\n"augment.aspect_ratio" = { low = [0.5], high = 1.0 }': "search.space.augment.aspect_ratio.low = "
    "[0.5]: cannot be searched, because each of its values is a list; sweep once for each, with --set "
    "augment.aspect_ratio=…",
    '[search.space]\n"search.trials" = [1]': "search.space.search.trials: cannot be searched; data.image_size, "
    "data.test_views and what is in [model], [augment] and [train] can",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_said_with_key_value_and_remedy(tmp_path, text):
    assert refusal(tmp_path, text) == BAD[text]


def test_every_mistake_of_a_file_is_named_at_once(tmp_path):
    message = refusal(tmp_path, '[train]\nepochs = "a"\nlr = -1\nwarmup_epoch = 3\n[data]\nmean = 1\n')
    assert message.split("\n") == [
        'data.mean = 1: must be "auto" or a list',
        'train.epochs = "a": must be a whole number',
        "train.lr = -1: must be greater than 0.0",
        "train.warmup_epoch = 3: unknown key; did you mean 'train.warmup_epochs'?",
    ]


def test_a_long_value_is_shown_cut(tmp_path):
    message = refusal(tmp_path, f'train.lr = "{"x" * 10_000}"')
    assert len(message) < 150
    assert message.startswith('train.lr = "xxx')
    assert message.endswith("...: must be a number")


@pytest.mark.parametrize(
    "text",
    ["epochs 3", "a = 1\na = 2", "a = " + "9" * 5000, "a = " + "[" * 5000, '"\\ud800" = 1'],
    ids=["syntax", "twice", "huge number", "deep", "half a character"],
)
def test_a_file_that_is_no_toml_is_refused(tmp_path, text):
    assert refusal(tmp_path, text).startswith("not valid TOML: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" * 70_000, "longer than the 65536 characters that an experiment may have"),
        ("\n" + ".".join("a" * 20_000) + " = 1", "line 2 has 19999 dots, more than 200"),
        ("[" + ".".join("a" * 20_000) + "]", "line 1 has 19999 dots, more than 200"),
        (".".join(['"="'] * 10_000) + " = 1", "line 1 has 9999 dots, more than 200"),
        ("x = { " + ".".join("a" * 20_000) + " = 1 }", "line 1 has 19999 dots, more than 200"),
    ],
    ids=["huge", "key", "table", "quoted", "inline"],
)
def test_a_file_that_would_take_minutes_to_read_is_refused(tmp_path, text, message):
    assert refusal(tmp_path, text).startswith(f"not valid TOML: {message}")


def test_a_list_of_many_numbers_is_no_deep_key(tmp_path):
    lrs = [i / 1000 + 0.0001 for i in range(1, 900)]
    assert load(tmp_path, f'[search.space]\n"train.lr" = {lrs}').search.space["train.lr"] == tuple(lrs)


@pytest.mark.parametrize("num", [5, 100, 180, 199, 250, 330])
@pytest.mark.parametrize("form", ["{}1{}", "{{ a = {}1{} }}"])
def test_a_deep_value_is_one_error_that_does_not_speak_of_json(tmp_path, num, form):
    message = refusal(tmp_path, f"train.lr = {form.format('[' * num, ']' * num)}")
    assert message.count("\n") == 0 and len(message) < 250
    assert "JSON" not in message and "json" not in message


@pytest.mark.parametrize("key", ["a\\nb", "a\\u001bb", "a" * 300])
def test_an_odd_key_is_shown_on_one_line(tmp_path, key):
    for text, *overrides in ((f'"{key}" = 1',), ("", f"{key.encode().decode('unicode_escape')}=1")):
        message = refusal(tmp_path, text, *overrides)
        assert message.removeprefix("--set: ").endswith("unknown key")
        assert message.isprintable() and len(message) < 120


def test_a_deep_key_is_one_error(tmp_path):
    assert refusal(tmp_path, ".".join("a" * 200) + " = 1").count("\n") == 0


HOSTILE_NAMES = [
    "..", ".", "a/b", "/etc", "a\\\\b", "../x", "-x", "", "a\\nb", "a\\u0000b", "<b>", "a'b", "a`b", "=1", "é",
    "x" * 101,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_no_safe_name_of_a_folder_is_refused(tmp_path, name):
    assert "must be up to 100 letters, digits, dots" in refusal(tmp_path, f'name = "{name}"')


def test_a_file_that_is_no_utf8_is_refused(tmp_path):
    path = tmp_path / "given.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"given\.toml: not valid TOML: "):
        load_experiment(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        load_experiment(tmp_path / "missing.toml")


def test_a_file_whose_name_cannot_be_an_experiments_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='name = "my cells": must be up to 100 letters'):
        load(tmp_path, "", name="my cells.toml")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["auto", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["low", "high", "log", "step", "a"]), inner, max_size=4)
    ),
    max_leaves=6,
)
KEYS = [key for key, _, _ in config_table() if key != "search.space"]


@settings(deadline=None)
@given(st.sampled_from([*KEYS, *(f"search.space.{key}" for key in KEYS)]), ANYTHING)
def test_any_value_is_taken_or_refused_by_name_and_never_in_pydantics_words(key, value):
    try:
        Experiment(name="n").replace({key: value})
    except ConfigError as error:
        for line in str(error).split("\n"):
            assert line.startswith((f"override: {key}", "override: train.warmup_epochs = 1: does not end"))
            assert not any(
                word in line for word in ("Input", "Field", "function-", "literal[", "tuple[", "constrained")
            )


# --- overrides ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.lr=3e-3", ("train.lr", 3e-3)),
        (" train.lr = 1 ", ("train.lr", 1)),
        ("train.device=cpu", ("train.device", "cpu")),
        ('train.device="cpu"', ("train.device", "cpu")),
        ("data.path=a=b", ("data.path", "a=b")),
        ("data.path=C:\\new", ("data.path", "C:\\new")),
        ("data.path=", ("data.path", "")),
        ("data.path='2024'", ("data.path", "2024")),
        ("train.deterministic=false", ("train.deterministic", False)),
        ("data.mean=[0.5, 0.5]", ("data.mean", [0.5, 0.5])),
        ("search.space.train.lr={ low = 1, high = 2 }", ("search.space.train.lr", {"low": 1, "high": 2})),
        ('search.space."model.depth"=[18, 19]', ("search.space.model.depth", [18, 19])),
        ("search.space.'model.depth'=[18]", ("search.space.model.depth", [18])),
        ('search.space={ "train.lr" = [1] }', ("search.space", {"train.lr": [1]})),
        ('"train.lr"=1', ("train.lr", 1)),
        ('train."lr=1', ('train."lr', 1)),
        ("data.path=1\nb = 2", ("data.path", "1\nb = 2")),
        ("data.path=" + "[" * 5000, ("data.path", "[" * 5000)),
    ],
)
def test_an_override_is_toml_or_a_bare_word(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["train.lr", "", "=3", " =3"])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match=r"expected KEY=VALUE, such as train\.lr=3e-3"):
        parse_override(text)


def test_overrides_replace_single_values(tmp_path):
    text = '[train]\nepochs = 4\nlr = 0.5\n[search.space]\n"model.depth" = [8, 14]\n'
    changed = load(tmp_path, text, "train.lr=1", "data.path=2024-x", "search.space.train.lr=[0.1, 1]", "train.lr=2")
    assert changed.train == TrainConfig(epochs=4, lr=2.0)
    assert changed.data.path == "2024-x"
    assert changed.search.space == {"model.depth": (8, 14), "train.lr": (0.1, 1.0)}


def test_a_table_as_an_override_sets_its_keys_and_the_search_space_is_replaced_whole(tmp_path):
    text = '[train]\nepochs = 4\nlr = 0.5\n[search.space]\n"model.depth" = [8, 14]\n'
    changed = load(tmp_path, text, "train={ lr = 1, epochs = 5 }", 'search.space={ "train.lr" = [0.1, 1] }')
    assert changed.train == TrainConfig(epochs=5, lr=1.0)
    assert changed.search.space == {"train.lr": (0.1, 1.0)}
    changed = load(tmp_path, text, "search={ space = {}, confirm = { seeds = 2 } }")
    assert changed.search.space == {}
    assert (changed.search.confirm.seeds, changed.search.confirm.top) == (2, 3)


def test_every_other_name_stands_for_a_key_that_there_is_and_is_no_key_itself():
    keys = [key for key, _, _ in config_table()]
    for word in {word for words in OTHER_NAMES.values() for word in words.split()}:
        assert key_called(word) in keys
        assert not [key for key in keys if key.rpartition(".")[2] == word], word


@pytest.mark.parametrize(
    ("prefix", "first", "number"),
    [
        ("train.l", "train.lr", 5),
        ("search.confirm", "search.confirm.top", 2),
        ("lr", "train.lr", 1),
        ("TRAIN.L", "train.lr", 5),
        ("", "data.source", 0),
    ],
)
def test_keys_are_found_by_how_they_begin(prefix, first, number):
    found = [key for key, _, _ in config_table(prefix)]
    assert found[0] == first
    assert len(found) == (number or len(config_table()))


def test_a_key_that_is_called_otherwise_is_named():
    with pytest.raises(ConfigError, match=r"^no key begins with 'learning_rate'; did you mean 'train\.lr'\?$"):
        config_table("learning_rate")
    with pytest.raises(ConfigError, match=r"^no key begins with 'trainn'; did you mean 'train'\?$"):
        config_table("trainn")


@pytest.mark.parametrize("section", ["train", "search", "search.confirm"])
def test_a_section_that_is_given_a_value_is_told_from_an_unknown_key(tmp_path, section):
    message = refusal(tmp_path, "", f"{section}=3")
    assert message.startswith(f"--set: {section} = 3: is a section; name a key of it, such as {section}.")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=1", "--set: train.learning_rate = 1: unknown key; did you mean 'train.lr'?"),
        ("LearningRate=1", "--set: LearningRate = 1: unknown key; did you mean 'train.lr'?"),
        ("train.base-lr=1", "--set: train.base-lr = 1: unknown key; did you mean 'train.lr'?"),
        ("train.wd=1", "--set: train.wd = 1: unknown key; did you mean 'train.weight_decay'?"),
        ("bs=1", "--set: bs = 1: unknown key; did you mean 'train.batch_size'?"),
        ("data.batchsize=1", "--set: data.batchsize = 1: unknown key; did you mean 'train.batch_size'?"),
        ("num_epochs=1", "--set: num_epochs = 1: unknown key; did you mean 'train.epochs'?"),
        ("arch=vit", "--set: arch = \"vit\": unknown key; did you mean 'model.name'?"),
        ("model.pretrained=true", "--set: model.pretrained = true: unknown key; did you mean 'model.weights'?"),
        ("search.n_trials=1", "--set: search.n_trials = 1: unknown key; did you mean 'search.trials'?"),
        ("train.zebra=1", "--set: train.zebra = 1: unknown key"),
        ("trian={ lr = 1 }", "--set: trian = { lr = 1 }: unknown key; did you mean 'train'?"),
        ("train={ wd = 1 }", "--set: train.wd = 1: unknown key; did you mean 'train.weight_decay'?"),
        ("search.space=5", "--set: search.space = 5: must be a table"),
        ('search.space={ "train.lr" = [0.1, -1] }', "--set: search.space.train.lr = -1: must be greater than 0.0"),
        ("search.space={ train.lr = [1] }", "--set: search.space.train.lr = [1]: one key of [search.space], so write "
         'it in quotes: "train.lr" = …'),
        ('search.space."train.learning_rate"=[1]', "--set: search.space.train.learning_rate: unknown key; did you "
         "mean 'train.lr'?"),
        ('search.space."model.depth"=[18, "x"]', '--set: search.space.model.depth = "x": must be a whole number'),
        ("train.lrr=4", "--set: train.lrr = 4: unknown key; did you mean 'train.lr'?"),
        ("lr=4", "--set: lr = 4: unknown key; did you mean 'train.lr'?"),
        ("train.epochs=x", '--set: train.epochs = "x": must be a whole number'),
        ("data.path=2024", "--set: data.path = 2024: must be text in quotes"),
        ("data.path=\udcff", "--set: data.path = '\\udcff': must be valid UTF-8"),
        ("train=4", "--set: train = 4: is a section; name a key of it, such as train.epochs"),
        ("train.warmup_epochs=30", "--set: train.warmup_epochs = 30: does not end within train.epochs = 30; "
         "train for longer, or add --set train.warmup_epochs=1"),
        ("search.space.train.lr.low=1", "--set: search.space.train.lr.low = 1: must be a table or a list"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_refused_like_a_file(tmp_path, override, message):
    assert refusal(tmp_path, "", override) == message


def test_a_key_of_a_search_space_that_is_no_table_is_refused(tmp_path):
    message = refusal(tmp_path, "", "search.space=5", "search.space.train.lr=[1]")
    assert message == "--set: search.space = 5: must be a table"


def test_replace_says_where_a_value_came_from_and_leaves_the_original():
    experiment = Experiment(name="n")
    with pytest.raises(ConfigError, match=r"^trial 3: train\.lr = 0: must be greater than 0\.0$"):
        experiment.replace({"train.lr": 0}, origin="trial 3")
    assert experiment.replace({"train.lr": 0.5}).train.lr == 0.5
    assert experiment == Experiment(name="n")


def test_the_warm_up_follows_the_epochs_until_it_is_given():
    short = Experiment(name="n").replace({"train.epochs": 1})
    assert short.train.warmup_epochs == 0
    assert short == Experiment(name="n").replace({"train.epochs": 1, "train.warmup_epochs": 0})
    assert short.replace({"train.epochs": 2}).train.warmup_epochs == 1
    assert short.replace({"train.lr": 0.5}).train.warmup_epochs == 0
    given = Experiment(name="n").replace({"train.epochs": 5, "train.warmup_epochs": 1})
    with pytest.raises(ConfigError, match=r"^--set contradicts the experiment: train\.warmup_epochs = 1: does not end"):
        given.replace({"train.epochs": 1}, origin="--set")


@pytest.mark.parametrize("value", [0, "", "auto", "12", "a b", "it's", "ü", [0.1, 0.2], {"low": 1, "high": 2}, True])
def test_options_are_read_as_they_are_shown(value):
    tokens = shlex.split(as_options({"a.b": value, "c": 1}))
    assert [tokens[0], tokens[2]] == ["--set", "--set"]
    assert dict(map(parse_override, tokens[1::2])) == {"a.b": value, "c": 1}


def test_an_experiment_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Experiment(name="n").train.lr = 1.0


# --- where files are ---


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "deep" / "down").mkdir(parents=True)
    for name in ("digits", "solar_cells"):
        (tmp_path / "experiments" / f"{name}.toml").touch()
    (tmp_path / "deep" / "other.toml").touch()
    return tmp_path.resolve()


@pytest.mark.parametrize(
    ("name", "cwd", "found"),
    [
        ("digits", ".", "experiments/digits.toml"),
        ("digits", "deep/down", "experiments/digits.toml"),
        ("experiments/digits.toml", ".", "experiments/digits.toml"),
        ("../../experiments/digits.toml", "deep/down", "experiments/digits.toml"),
        ("digits.toml", "experiments", "experiments/digits.toml"),
        ("deep/other.toml", ".", "deep/other.toml"),
        ("other.toml", "deep", "deep/other.toml"),
        ("experiments/digits", ".", "experiments/digits.toml"),
        ("digits.toml", ".", "experiments/digits.toml"),
        ("deep/other", ".", "deep/other.toml"),
        ("digits", "experiments", "experiments/digits.toml"),
    ],
)
def test_a_name_or_a_path_is_found_and_the_root_is_the_projects(repository, name, cwd, found):
    assert find_experiment(name, repository / cwd) == (repository / found, Project(repository))


def test_an_absolute_path_brings_its_own_root(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere").resolve()
    path = repository / "experiments" / "digits.toml"
    assert find_experiment(str(path), elsewhere) == (path, Project(repository))
    (elsewhere / "loose.toml").touch()
    assert find_experiment("loose.toml", elsewhere) == (elsewhere / "loose.toml", Project(elsewhere))


def test_the_working_directory_is_the_one_given_not_the_process_s(repository, monkeypatch):
    (repository / "deep" / "config").touch()
    monkeypatch.chdir(repository / "deep")
    assert find_experiment("config", repository / "deep")[0] == repository / "deep" / "config"
    with pytest.raises(ConfigError):
        find_experiment("config", repository)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digts", "no experiment 'digts'; known experiments: digits, solar_cells; did you mean 'digits'?"),
        ("zebra", "no experiment 'zebra'; known experiments: digits, solar_cells"),
        ("deep/othr.toml", "no experiment 'deep/othr.toml'; known experiments: other; did you mean 'other'?"),
        (
            "experiments/digts",
            "no experiment 'experiments/digts'; known experiments: digits, solar_cells; did you mean 'digits'?",
        ),
        ("zebra.toml", "no experiment 'zebra.toml'; known experiments: digits, solar_cells"),
        ("nowhere/zebra", "no experiment 'nowhere/zebra'; known experiments: digits, solar_cells"),
    ],
)
def test_an_experiment_that_is_not_there_is_answered_with_those_that_are(repository, name, message):
    with pytest.raises(ConfigError) as caught:
        find_experiment(name, repository)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["x" * 5000, "../../../etc/no-such-file", "a'; drop table", "`id`", "a\0b", "loop.toml", "pipe.toml"]
)
def test_a_hostile_name_is_an_experiment_that_is_not_there(repository, name):
    (repository / "loop.toml").symlink_to("loop.toml")
    os.mkfifo(repository / "pipe.toml")
    with pytest.raises(ConfigError, match=r"^no experiment "):
        find_experiment(name, repository)


def test_a_folder_of_images_is_not_taken_for_an_experiment(repository):
    with pytest.raises(
        ConfigError, match=r"^no experiment 'deep': .*deep is a folder; name a TOML file, whose data.path"
    ):
        find_experiment("deep", repository)


def test_where_there_is_no_experiment_at_all_the_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"experiments holds no experiment; start in the folder"):
        find_experiment("digits", tmp_path)


def test_the_project_root_is_the_nearest_folder_with_experiments(repository, tmp_path_factory):
    assert Project.around(repository) == Project.around(repository / "deep" / "down") == Project(repository)
    nested = repository / "deep" / "down"
    (nested / "experiments").mkdir()
    assert Project.around(nested / "experiments").root == nested
    elsewhere = tmp_path_factory.mktemp("elsewhere").resolve()
    assert Project.around(elsewhere).root == elsewhere


FORBIDDEN = """
import os, sys
from pathlib import Path
from imgcls.project import find_experiment
if os.getuid() == 0:  # whom no permission stops
    os.setuid(54321)
try:
    find_experiment("tiny", Path(sys.argv[1]))
except PermissionError as error:
    print(error)
"""


def test_an_experiment_that_may_not_be_read_is_not_said_to_be_missing():
    with tempfile.TemporaryDirectory() as folder:  # the folders of pytest are closed to others
        Path(folder).chmod(0o755)
        experiments = Path(folder, "experiments")
        experiments.mkdir()
        (experiments / "tiny.toml").write_text("")
        experiments.chmod(0)
        done = subprocess.run([sys.executable, "-c", FORBIDDEN, folder], capture_output=True, text=True, check=False)
        experiments.chmod(0o700)
    assert "Permission denied" in done.stdout, done.stderr


def test_the_keys_of_reports_are_those_that_no_digest_counts():
    assert [key for key in value_keys(Experiment) if key.startswith("report.")] == list(ONLY_REPORTED)
