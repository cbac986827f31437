"""An experiment made ready: its data loaded, every `auto` resolved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import nn

from imgcls.config.keys import AugmentConfig, DataConfig, Experiment
from imgcls.data.augment import Augment, Normalise, refuse_colours_of_grey
from imgcls.data.image_set import DecodedImages
from imgcls.data.image_warnings import held_warnings
from imgcls.data.loader import Loader
from imgcls.data.preprocessing import Preprocessing
from imgcls.data.splits import SQUARES_FORMAT, Dataset, load_dataset
from imgcls.errors import ConfigError
from imgcls.metrics import BY_NAME, metric_named
from imgcls.models.head import Head
from imgcls.models.registry import build_model, build_models, network_parts, pretrained_normalisation, resolve_model
from imgcls.models.views import with_views
from imgcls.project import Project
from imgcls.record import Tag
from imgcls.reporting.images_overview import too_few_to_score
from imgcls.rng import derive_seed
from imgcls.run_record import RunRecord
from imgcls.runs.head_only import check_head_only, head_of, on_features
from imgcls.runs.used_params import used_params
from imgcls.terminal import waiting
from imgcls.text import either
from imgcls.training.device import Device, prepare_device
from imgcls.training.loop import Task, TrainState, predict
from imgcls.training.loss import Loss


@dataclass(frozen=True)
class Prepared:
    """A prepared experiment, ready to run.

    Attributes:
        experiment: resolved: no `auto` and no "the model's own" is left of what affects the result, but for
            `train.threads` where a measurement has to decide; see `runs.threads`.
        dataset: its images.
        device: where it computes.
        project: where its paths start.
        warnings: what is to be said of the images, once; see `announce`.
        has_folds: whether it is to be trained in folds, one network for each.
    """

    experiment: Experiment
    dataset: Dataset
    device: Device
    project: Project
    warnings: tuple[str, ...] = ()

    def with_threads(self, threads: int) -> Prepared:
        """With so many CPU threads, which torch has from now on."""
        train = self.experiment.train.model_copy(update={"threads": threads})
        experiment = self.experiment.model_copy(update={"train": train})
        return replace(self, experiment=experiment, device=self.device.with_threads(threads))

    @property
    def has_folds(self) -> bool:  # noqa: D102 - in the class's docstring
        return self.dataset.folds is not None

    def params(self) -> dict[str, str]:
        """What MLflow shows of the experiment; see `used_params`."""
        return used_params(self.experiment.params())

    def to_train(self, *, with_weights: bool) -> nn.Module:
        """What is trained, before training; a head is always that of a network with its starting weights."""
        return self.trained_part(self.model(with_weights=with_weights or self.experiment.train.head_only))

    def trained_part(self, network: nn.Module) -> nn.Module:
        """What is trained of one of its networks: all of it, or its head."""
        if not self.experiment.train.head_only:
            return network
        return head_of(network, self.experiment, self.dataset.channels)

    def begin(self, *, with_weights: bool = True) -> tuple[Task, TrainState]:
        """The task of training one of its networks, and the state before its first step; see `to_train`."""
        trained, config = self.to_train(with_weights=with_weights), self.experiment
        parts = None if isinstance(trained, Head) else network_parts(config.model, trained)
        return self.task(trained), TrainState.start(trained, config.train, self.device, parts)

    def task(self, trained: nn.Module) -> Task:
        """What the loop needs besides its state, to train a `trained_part`."""
        task = self.task_on_images()
        return on_features(task, trained, self.experiment, self.dataset) if isinstance(trained, Head) else task

    def task_on_images(self) -> Task:
        """The task of training whole networks."""
        config, where = self.experiment.train, self.device.torch_device
        num_classes = len(self.dataset.class_names)
        return Task(
            config=config,
            metric=self.experiment.search.metric,
            train=Loader(self.dataset.train, config.batch_size, where, is_balanced=config.sampling == "balanced"),
            val=Loader(self.dataset.val, config.eval_batch_size, where),
            augment=Augment(self.experiment.augment, self.experiment.data.image_size),
            normalise=self.normalise(),
            num_classes=num_classes,
            loss=Loss.of(config, np.bincount(self.dataset.train.labels, minlength=num_classes), where),
            device=self.device,
            test_views=self.experiment.data.test_views,
        )

    def task_of_seen_images(self) -> Task:
        """The task whose views are the images behind what is trained on; where features are mixed, they are not."""
        task, augment = self.task_on_images(), self.experiment.augment
        if not self.experiment.train.head_only:
            return task
        unmixed = Augment(augment.model_copy(update={"mixup": 0.0}), self.experiment.data.image_size)
        return replace(task, augment=unmixed)

    def normalise(self) -> Normalise:
        """The normalisation that the experiment records."""
        data = self.experiment.data
        assert data.mean != "auto"
        assert data.std != "auto"
        return Normalise(data.mean, data.std, self.device.torch_device)

    def preprocessing(self) -> Preprocessing:
        """How its val and test images become the network's input."""
        data, squares = self.experiment.data, self.dataset.squares
        assert data.mean != "auto"
        assert data.std != "auto"
        side = data.image_size if squares >= 2 else int(self.dataset.train.stored.shape[-1])
        return Preprocessing(self.dataset.channels, data.image_size, data.fit, data.mean, data.std, squares, side)

    def model(self, *, with_weights: bool = True) -> nn.Module:
        """The network before training; without its starting weights where a checkpoint replaces them anyway.

        With folds, the networks of all folds together: an `Ensemble`.
        """
        return build_models(
            self.dataset.num_folds,
            self.experiment.model,
            num_classes=len(self.dataset.class_names),
            channels=self.dataset.channels,
            image_size=self.experiment.data.image_size,
            seed=derive_seed(self.experiment.train.seed, "weights"),
            file=self.project.weights(self.experiment.model) if with_weights else None,
            with_weights=with_weights,
        )

    def with_views(self, model: nn.Module) -> nn.Module:
        """A trained model as it answers: by the mean over `data.test_views`."""
        return with_views(model, self.experiment.data.test_views)

    def predict(self, network: nn.Module, images: DecodedImages) -> NDArray[np.float32]:
        """Logits of a trained network, or of an ensemble, for N images: float32 (N, K), by the mean over the views."""
        loader = Loader(images, self.experiment.train.eval_batch_size, self.device.torch_device)
        model = self.with_views(self.device.place(network))
        logits: NDArray[np.float32] = predict(model, loader, self.normalise(), self.device).numpy()
        return logits

    def of_fold(self, number: int) -> Prepared:
        """The run that trains the model of one fold, from 1, up to the epoch that is one for all folds.

        Where that epoch is known only once all folds have run, the model keeps the weights of every epoch.
        """
        data, train = self.experiment.data, self.experiment.train
        epochs = {} if train.score_epoch else {"score_epoch": train.epochs, "save_from_epoch": 1}
        experiment = self.experiment.model_copy(
            update={"data": data.model_copy(update={"fold": number}), "train": train.model_copy(update=epochs)}
        )
        return replace(self, experiment=experiment, dataset=self.dataset.of_fold(number))

    def as_scored(self, record: RunRecord) -> Prepared:
        """What val scored of this run, whose record is given: where it ended early in folds, those that have run."""
        if Tag.NUM_FOLDS not in record.tags:
            return self
        return replace(self, dataset=self.dataset.of_first_folds(record.num_folds))


def prepare(experiment: Experiment, project: Project, squares: int = SQUARES_FORMAT) -> Prepared:
    """Prepares an experiment: loads its data and resolves every `auto`; trains and records nothing.

    `squares` is the format of the squares of val and test: `imgcls.squares` of a run that is to be repeated or judged.

    Raises:
        InputError: whatever makes the experiment impossible here.
    """
    # Cheap refusals first: a wrong depth should not wait for a thousand images to be decoded.
    _check_epoch_of_folds(experiment)
    channels = 1 if experiment.data.channels == 1 else 3
    resolve_model(experiment.model, channels, experiment.data.image_size)
    check_head_only(experiment, channels)
    project.weights(experiment.model)
    device = prepare_device(experiment.train)
    has_choice = device.torch_device.type == "cpu" and device.threads > 1 and device.ranks.size == 1
    is_open = experiment.train.threads == "auto" and has_choice
    images_of = experiment.data.model_copy(update={"fold": 0, "test_views": "one"})
    if experiment.data.channels != "auto":
        refuse_colours_of_grey(experiment.augment, experiment.data.channels)
    dataset, warnings = shared_dataset(images_of, experiment.augment.of_stored_images(), project, squares)
    refuse_colours_of_grey(experiment.augment, dataset.channels)
    if experiment.data.fold:
        dataset = dataset.of_fold(experiment.data.fold)
    for of_model in map(dataset.of_fold, range(1, dataset.num_folds + 1)) if dataset.num_folds else (dataset,):
        _check_metric(experiment.search.metric, of_model)
    model = resolve_model(experiment.model, dataset.channels, experiment.data.image_size)
    mean, std = dataset.mean, dataset.std
    if (pretrained := pretrained_normalisation(model)) is not None:
        mean = pretrained[0] if experiment.data.mean == "auto" else mean
        std = pretrained[1] if experiment.data.std == "auto" else std
    resolved = experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update={"channels": dataset.channels, "mean": mean, "std": std}),
            "model": model,
            "train": experiment.train.model_copy(
                update={
                    "device": device.setting,
                    "threads": "auto" if is_open else device.threads,
                    "precision": "bfloat16" if device.autocast else "float32",
                    "score_epoch": _score_epoch(experiment),
                }
            ),
        }
    )
    return Prepared(resolved, dataset, device, project, warnings)


def check_network(experiment: Experiment, project: Project) -> None:
    """Builds the network once before any image is read, so that what it refuses is said at once.

    Nothing is downloaded. Weights in a file or in a package are copied into it too, where it is known how many channels
    the images have.

    Raises:
        InputError: an image size that the network refuses, or weights that are of another network.
    """
    data, channels = experiment.data, 1 if experiment.data.channels == 1 else 3
    model = resolve_model(experiment.model, channels, data.image_size)
    is_known = data.channels != "auto" or data.source == "folder" or model.weights_are_a_package
    has_weights = is_known and (model.weights_are_a_file or model.weights_are_a_package)
    if has_weights or ":" in model.name:
        file = project.weights(model)
        build_model(model, 2, channels, data.image_size, seed=0, file=file, with_weights=has_weights)


def _check_epoch_of_folds(experiment: Experiment) -> None:
    """Refuses folds that would end at an epoch each.

    Raises:
        ConfigError: naming the keys.
    """
    if experiment.data.folds and experiment.train.patience:
        raise ConfigError(
            f"train.patience = {experiment.train.patience} would end each of the folds (data.folds = "
            f"{experiment.data.folds}) at an epoch of its own, and one epoch has to hold for all; set train.patience "
            'to 0. train.folds_epoch = "best" keeps the best epoch of their mean curve'
        )


def _score_epoch(experiment: Experiment) -> int:
    """With folds, the last epoch is the one that is kept, unless another is asked for."""
    train = experiment.train
    is_last = experiment.data.folds and train.folds_epoch == "last"
    return train.score_epoch or (train.epochs if is_last else 0)


def _check_metric(name: str, dataset: Dataset) -> None:
    """Refuses a metric that is undefined on these val images.

    Raises:
        ConfigError: naming the metric and a class.
    """
    num_images = np.bincount(dataset.val.labels, minlength=len(dataset.class_names))
    if metric_named(name).needs_every_class and not num_images.all():
        missing = dataset.class_names[int(num_images.argmin())]
        raise ConfigError(
            f"search.metric = {name} is undefined on val, where class {missing!r} has no images; give it val images, "
            f"or select by {either([one.on_val for one in BY_NAME.values() if not one.needs_every_class])}"
        )


def shared_dataset(
    data: DataConfig, augment: AugmentConfig, project: Project, squares: int
) -> tuple[Dataset, tuple[str, ...]]:
    """Prepares the images of an experiment, and their warnings; trials that share their data load it once.

    Pass `augment.of_stored_images()`, so that trials that differ in other augmentation keys share the images.
    """
    of = data, augment, project
    asked = _asked_formats.get((*of, squares), squares)
    dataset, warnings = cached_dataset(*of, asked)
    _asked_formats[(*of, dataset.squares)] = asked
    return dataset, warnings


_asked_formats: dict[tuple[object, ...], int] = {}
"""By data and the format that its images have: the format up to which they were asked for, which gives the same."""


@lru_cache(maxsize=2)
def cached_dataset(
    data: DataConfig, augment: AugmentConfig, project: Project, squares: int
) -> tuple[Dataset, tuple[str, ...]]:
    """See `shared_dataset`, which knows of two formats that give the same images."""
    with held_warnings() as warnings, waiting(f"reading the images of {data.path or data.source}"):
        dataset = load_dataset(data, augment, project, squares)
    return dataset, tuple(filter(None, [*warnings, dataset.cut, too_few_to_score(dataset)]))
