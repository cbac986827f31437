"""What users first change with `--set` in a file of `imgcls init`: each works, or its error has the whole remedy."""

import re
import shlex

import pytest

from imgcls.config.load import load_experiment
from imgcls.errors import InputError
from imgcls.init.verb import init
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from imgcls.search.sweep import Sweep
from tests.data.make import write_classes

PRETRAINED = """
[data]
source = "folder"
path = "images"
image_size = 64

[model]
name = "timm:tf_efficientnet_lite0"
weights = "package:efficientnet-lite0"

[train]
epochs = 5
batch_size = 8
lr = 1e-3

[search.space]
"train.lr" = { low = 3e-4, high = 3e-3, log = true }
"train.warmup_epochs" = { low = 0, high = 2 }
"""
"""What init writes where the images are larger, and what an earlier version of it wrote: its warm-up stood there."""

EARLIER = PRETRAINED.replace("lr = 1e-3", "lr = 1e-3\nwarmup_epochs = 1")


@pytest.fixture(scope="module")
def made(make_project):
    project = make_project()
    write_classes(project.root / "images", {"cat": 40, "dog": 40})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        init("small", project.root / "images", 120.0, project.root)
    for name, text in (("pretrained", PRETRAINED), ("earlier", EARLIER)):
        (project.root / "experiments" / f"{name}.toml").write_text(text)
    return project


def why_not(project, verb, name, overrides):
    try:
        experiment = load_experiment(project.root / "experiments" / f"{name}.toml", overrides)
        if verb == "sweep":
            Sweep(experiment, project.tracker)
        else:
            prepare(experiment, Project(project.root)).begin()
    except InputError as error:
        return str(error)
    return ""


def shown_options(message):
    """What follows `--set` in the options that an error ends with."""
    tokens = shlex.split(message[re.search("--set (?!contradicts)", message).start() :])
    assert set(tokens[::2]) == {"--set"}
    return tokens[1::2]


@pytest.mark.parametrize("verb", ["train", "sweep"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("small", "train.epochs=1"),
        ("small", "train.epochs=5"),
        ("small", "data.image_size=16"),
        ("small", "train.batch_size=4"),
        ("small", "train.batch_size=512"),
        ("small", "data.val_fraction=0.3"),
        ("small", "data.val_fraction=0"),
        ("small", "data.test_fraction=0"),
        ("small", "data.fit=squash"),
        ("small", "model.depth=18"),
        ("small", "model.stem=standard"),
        ("small", "model.name=resnet32"),
        ("small", "model.name=random-encoder"),
        ("small", "model.name=torchvision:resnet18"),
        ("small", "train.lr=0.5"),
        ("small", "train.lr=1e-6"),
        ("small", "augment.mixup=0.1"),
        ("small", "search.sampler=grid"),
        ("small", "data.source=digits"),
        ("pretrained", "train.epochs=1"),
        ("pretrained", "train.epochs=2"),
        ("pretrained", "train.warmup_epochs=3"),
        ("pretrained", "data.image_size=32"),
        ("pretrained", "data.channels=1"),
        ("pretrained", "model.name=resnet"),
        ("pretrained", "model.name=random-encoder"),
        ("pretrained", "model.name=torchvision:squeezenet1_1"),
        ("pretrained", "model.depth=18"),
    ],
)
def test_a_quick_change_works_or_its_error_has_the_whole_remedy(made, verb, name, change):
    if message := why_not(made, verb, name, [change]):
        assert why_not(made, verb, name, [change, *shown_options(message)]) == ""


NONE_OF_RESNET = ("model.depth=0", "model.width=0", "model.stem=auto")


@pytest.mark.parametrize(
    ("change", "space"),
    [
        (["model.stem=standard", "model.depth=18"], "search.space.model.depth=[18, 20]"),
        (["model.name=torchvision:resnet18", *NONE_OF_RESNET], "search.space.model.width=[16, 32]"),
        (
            ["model.name=random-encoder", *NONE_OF_RESNET, "data.image_size=20", "model.patch=4"],
            "search.space.model.patch=[4, 6]",
        ),
    ],
)
def test_an_impossible_value_of_the_space_is_to_be_taken_out_of_it(made, change, space):
    message = why_not(made, "sweep", "small", [*change, space])
    assert "is impossible" in message and "take it out of the search space" in message, message
    assert "to mend this" not in message


@pytest.mark.parametrize("change", ["train.epochs=1", "train.epochs=2", "data.image_size=16", "train.batch_size=4"])
def test_a_quick_try_works_at_once(made, change):
    assert [why_not(made, "train", name, [change]) for name in ("small", "pretrained")] == ["", ""]


def test_a_warm_up_in_a_file_of_an_earlier_version_is_named(made):
    message = why_not(made, "train", "earlier", ["train.epochs=1"])
    assert shown_options(message) == ["train.warmup_epochs=0"]
    assert why_not(made, "train", "earlier", ["train.epochs=1", *shown_options(message)]) == ""


def test_a_network_that_refuses_the_size_of_the_images_has_a_usual_one(made):
    change = ["model.name=timm:vit_tiny_patch16_224", "model.weights=", "data.image_size=8"]
    (usual,) = shown_options(why_not(made, "train", "pretrained", change))
    assert usual == "data.image_size=224"
