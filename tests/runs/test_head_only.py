"""A head trained on stored features, against plain torch on images, scikit-learn, and its own network on images."""

import contextlib
import io
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from imgcls.config.key_names import fields_of
from imgcls.config.keys import AugmentConfig, TrainConfig
from imgcls.config.toml import as_toml
from imgcls.data.cache_folder import entries
from imgcls.errors import ConfigError, Interrupted
from imgcls.evaluation.compare import compare
from imgcls.evaluation.comparison_report import comparison_markdown
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.models.head import whole_network
from imgcls.models.parts import head_features
from imgcls.record import Artifact
from imgcls.runs import head_only
from imgcls.search.sweep import Sweep
from imgcls.training.device import prepare_device
from imgcls.training.loop import TrainState, fit, predict_val
from tests import fast_start
from tests.runs.test_resume import assert_it_goes_on, assert_same, points
from tests.stops import StopAfter

ALL_VIEWS = ("augment.horizontal_flip=true", "augment.quarter_turns=true")
EVERYTHING = (
    *ALL_VIEWS, "augment.mixup=0.3", "model.dropout=0.2", "train.ema_decay=0.9", "train.sampling=balanced",
    "train.loss=focal",
)  # fmt: skip


@pytest.fixture(scope="session")
def weights(make_project, tmp_path_factory):
    """A file of trained weights."""
    made, path = make_project(), tmp_path_factory.mktemp("weights") / "digits.pt"
    with contextlib.chdir(made.root), made.tracker.fetch(made.trained().run_id, Artifact.BEST) as best:
        shutil.copy(best, path)
    return path


@pytest.fixture
def head(weights):
    """The settings of a run that trains the head of these weights alone."""
    return "train.head_only=true", f"model.weights={weights}"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def features_kept():
    return [entry for entry in entries() if entry.about.startswith("features of")]


def fitted(prepared):
    """The state and the task after training, without a record."""
    model = prepared.to_train(with_weights=True)
    task = prepared.task(model)
    state = TrainState.start(model, task.config, task.device)
    for _ in fit(task, state):
        pass
    return state, task


def without_head(network, images):
    """torch's own way through a network of ours to what enters its last layer."""
    return torch.nn.Sequential(*list(network.children())[:-1])(images)


def test_a_head_is_trained_as_on_images_behind_a_frozen_backbone(project, head):
    prepared = project.prepare(*head, *ALL_VIEWS, "train.weight_decay=0.1")
    state, _ = fitted(prepared)

    network, task = prepared.model().eval(), prepared.task_on_images()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    last = network.fc
    optimizer = torch.optim.AdamW(
        [{"params": [last.weight], "weight_decay": 0.1}, {"params": [last.bias], "weight_decay": 0.0}]
    )
    for epoch in range(task.config.epochs):
        for step, batch in enumerate(task.train.shuffled(task.config.seed, epoch)):
            views, labels = task.augmented(batch, epoch, step)
            with torch.no_grad():
                features = without_head(network, views)
            for group in optimizer.param_groups:
                group["lr"] = task.lr(epoch, step)
            optimizer.zero_grad()
            F.cross_entropy(last(features), labels, label_smoothing=task.config.label_smoothing).backward()
            optimizer.step()
    found = whole_network(state.model).state_dict()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
        if not name.startswith("fc."):
            assert torch.equal(found[name], start[name]), name
    assert not torch.equal(found["fc.weight"], start["fc.weight"])


def test_trained_to_convergence_a_head_is_scikit_learns_logistic_regression(project, head):
    """Half of the labels are drawn, so that the classes overlap and the loss is least at finite weights."""
    prepared = project.prepare(
        *head, "train.epochs=400", "train.batch_size=2000", "train.lr=3.0", "train.weight_decay=0.0",
        "train.label_smoothing=0.0", "train.warmup_epochs=0",
    )  # fmt: skip
    train, network = prepared.dataset.train, prepared.model().eval()
    draws = np.random.default_rng(0)
    labels = np.where(draws.random(len(train)) < 0.5, draws.integers(0, 10, len(train)), train.labels)
    prepared = replace(prepared, dataset=replace(prepared.dataset, train=replace(train, labels=labels)))
    state, _ = fitted(prepared)
    with torch.no_grad():
        features = without_head(network, prepared.normalise()(torch.from_numpy(train.pixels)))
        ours = float(F.cross_entropy(state.model(features), torch.from_numpy(labels)))
    oracle = LogisticRegression(C=np.inf, max_iter=3000).fit(features.numpy(), labels)
    least = log_loss(labels, oracle.predict_proba(features.numpy()))
    assert least < 1.7  # drawn labels alone would leave 2.3
    assert ours == pytest.approx(least, abs=4e-3)


@pytest.mark.parametrize(
    "settings",
    [(), EVERYTHING, ("data.test_views=flips", *ALL_VIEWS), ("data.test_views=orientations", "train.average_epochs=2")],
    ids=["plain", "everything", "flips", "orientations"],
)
def test_the_checkpoint_is_the_whole_network_and_predicts_what_the_features_did(project, head, settings):
    run = project.train(*head, *settings)
    prepared, network = project.prepare(*head, *settings), None
    network = prepared.model(with_weights=False)
    with project.tracker.fetch(run.run_id, Artifact.BEST) as path:
        network.load_state_dict(torch.load(path, weights_only=True)["model"])
    task = prepared.task_on_images()
    logits = predict_val(task, network)
    table = pd.read_csv(io.StringIO(project.tracker.read_text(run.run_id, Artifact.VAL_PREDICTIONS)))
    record = project.tracker.get(run.run_id)
    assert float(F.cross_entropy(logits, task.val.labels)) == pytest.approx(record.best("val/loss"), abs=1e-5)
    probs = torch.softmax(logits, dim=1).numpy()
    columns = [name for name in table.columns if name.startswith("prob/")]
    assert len(columns) == 10
    np.testing.assert_allclose(table[columns].to_numpy(), probs, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [(), pytest.param(("data.folds=3",), marks=pytest.mark.slow)], ids=["one", "folds"]
)
def test_a_run_is_repeated_to_the_bit_and_judged_through_its_whole_network(project, head, settings):
    run = project.train(*head, *settings)
    assert rerun(run.run_id, project.tracker).word == "bitwise"
    evaluate(run.run_id, project.tracker)
    (look,) = project.runs(kind="evaluation")
    assert look.metrics["val/accuracy"] == project.tracker.get(run.run_id).best("val/accuracy")


@pytest.mark.usefixtures("own_cache")
@pytest.mark.slow
def test_features_are_computed_once_for_all_runs_of_the_same_images_and_weights(project, head, monkeypatch):
    computed, original = [], head_only._features

    def counting(*arguments):
        computed.append(1)
        return original(*arguments)

    monkeypatch.setattr(head_only, "_features", counting)
    head = (*head, "data.mean=[0.3]", "data.std=[0.4]")  # measured ones would differ with the split
    project.train(*head)
    project.train(*head, "train.lr=0.1", "train.seed=5", "augment.mixup=0.4", "model.dropout=0.1", "data.seed=7")
    project.train(*head, "data.folds=2")
    assert len(computed) == len(features_kept()) == 1
    project.train(*head, "augment.vertical_flip=true")
    assert len(computed) == len(features_kept()) == 2
    project.train(*head, "augment.vertical_flip=true", "data.mean=[0.1]")
    assert len(computed) == len(features_kept()) == 3


def test_features_do_not_depend_on_the_number_of_threads():
    """The network's own bits do: its layer is shared by the threads in another way for each number of them."""
    draws = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4096, 512), torch.nn.Linear(512, 10)).eval()
    images = torch.randn(48, 4096, generator=draws)

    def of_batch(own, start):
        with torch.inference_mode():
            return head_features(own, ["1"], images[start : start + 16])

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = [of_batch(network, start) for start in (0, 16, 32)]
        for threads in (1, 2, 3, 4):
            device = prepare_device(TrainConfig(device="cpu", threads=threads))
            found = list(head_only._side_by_side(network, device, of_batch, range(0, 48, 16)))
            assert torch.get_num_threads() == threads
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True)), threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_stop_while_features_are_computed_is_a_stop_of_the_run(project, head, own_cache):
    whole = project.train(*head).run_id
    shutil.rmtree(own_cache)
    batches = ("train.eval_batch_size=100",)
    with pytest.raises(Interrupted, match="while the features"), StopAfter(3):
        project.train(*head, *batches)
    (stopped,) = project.runs(outcome="interrupted")
    assert not features_kept()
    assert project.train(*head, *batches).run_id == stopped.run_id
    assert points(project, stopped.run_id) == points(project, whole)


@pytest.mark.parametrize("questions", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 6, 13))])
def test_a_run_stopped_at_any_question_goes_on_to_the_same_bits(project, head, questions):
    settings = (*head, *EVERYTHING, "train.eval_batch_size=100")
    whole = project.train(*settings).run_id
    assert_it_goes_on(project, settings, questions, whole)


REFUSED = {
    "random_resized_crop": "[0.8, 1.0]", "rotation": "5.0", "shift": "0.1", "brightness": "0.2", "contrast": "0.2",
    "saturation": "0.2", "hue": "0.1", "cutout": "0.5", "cutmix": "1.0",
}  # fmt: skip


def test_every_augmentation_goes_with_features_or_is_refused():
    names = {key for key, _, _ in fields_of(AugmentConfig)}
    assert names == REFUSED.keys() | set(head_only.OF_FEATURES) | set(head_only.WITHOUT_EFFECT)


@pytest.mark.parametrize("key", REFUSED)
def test_an_augmentation_of_pixels_is_refused_with_an_override_that_works(project, head, key):
    settings = (*head, "data.channels=1", f"augment.{key}={REFUSED[key]}")
    with pytest.raises(ConfigError, match=rf"augment\.{key} = .* add --set") as error:
        project.prepare(*settings)
    (remedy,) = error.value.remedy.items()
    assert project.prepare(*settings, f"{remedy[0]}={as_toml(remedy[1])}").experiment.train.head_only
    assert project.prepare(*settings, "train.head_only=false") if key not in ("saturation", "hue") else True


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ((), "model.weights = ''"),
        (("model.name=random-encoder", "model.patch=4", "data.channels=3"), "random by design"),
    ],
)
def test_a_backbone_of_random_weights_is_refused(project, settings, why):
    with pytest.raises(ConfigError, match=why):
        project.prepare("train.head_only=true", "model.depth=0", "model.width=0", *settings)


SPACE = ("search.space.model.depth=[8]", "search.space.train.warmup_epochs=[1]")


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_a_sweep_of_heads_computes_features_once(project, head):
    Sweep(project.experiment(*head, *SPACE), project.tracker).run()
    assert len(project.runs(kind="trial")) == 3
    assert len(features_kept()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        ("search.space.augment.rotation=[0.0, 5.0]",),
        ("train.head_only=false", "search.space.train.head_only=[true, false]", "augment.rotation=5.0"),
        (
            "train.head_only=false",
            "search.space.train.head_only=[true, false]",
            "search.space.augment.cutout=[0.0, 0.3]",
        ),
    ],
)
def test_a_sweep_is_refused_whose_trials_would_be(project, head, settings):
    with pytest.raises(ConfigError, match=r"^search.space: .*augment\.(rotation|cutout).* out of the search space$"):
        Sweep(project.experiment(*head, *SPACE, *settings), project.tracker)


def test_compare_tells_a_head_from_the_whole_network(project, head):
    whole = project.train(head[1], "train.epochs=2")
    alone = project.train(*head)
    found = compare([alone.run_id, whole.run_id], project.tracker)
    assert "| train.head_only | true | false |" in comparison_markdown(found)


@pytest.mark.slow
def test_the_figures_of_a_head_show_the_images(project, head):
    run_id = project.train(*head, *ALL_VIEWS, "augment.mixup=0.3", "report.figures=all").run_id
    record = project.tracker.get(run_id)
    assert (record.folder / Artifact.TRAINING_SAMPLE).exists()
    assert (record.folder / Artifact.VAL_MISTAKES).exists()


COMMAND = (sys.executable, "-m", "imgcls", "train", "tiny")


@pytest.mark.slow
def test_two_processes_that_begin_together_compute_the_features_once(project, head, own_cache):
    options = [part for setting in head for part in ("--set", setting)]
    both = [
        fast_start.Popen([*COMMAND, *options, "--set", f"train.seed={seed}"], cwd=project.root, stderr=subprocess.PIPE)
        for seed in (1, 2)
    ]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err.decode()
    assert len(features_kept()) == 1
    assert [path.name for path in own_cache.glob("building-*")] == []


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits(project, head):
    settings = (*head, *EVERYTHING, "train.epochs=60")
    whole = project.train(*settings).run_id
    options = [part for setting in settings for part in ("--set", setting)]
    with fast_start.Popen([*COMMAND, *options, "--fresh"], cwd=project.root, stderr=subprocess.PIPE, text=True) as run:
        next(line for line in run.stderr if "epoch   3/" in line)
        run.kill()
    (killed,) = [run for run in project.runs(kind="train") if run.run_id != whole]
    assert killed.status == "RUNNING"
    assert project.train(*settings).run_id == killed.run_id
    assert_same(project, killed.run_id, whole)
