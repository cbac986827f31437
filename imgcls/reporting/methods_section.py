"""How a run was trained, in sentences for a methods section, from its params and tags alone."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from imgcls.config.key_names import Reported
from imgcls.config.keys import AugmentConfig
from imgcls.data.decode import PAD_LEVEL
from imgcls.record import UNKNOWN, Tag
from imgcls.run_record import RunRecord
from imgcls.text import counted

COUNTS = {"train": Tag.NUM_TRAIN, "val": Tag.NUM_VAL, "test": Tag.NUM_TEST}

TOGETHER = "Together they predict the mean of their probabilities, with temperature 1."
"""What the models of all folds are used as, in a methods section."""

UNNAMED = ("imgcls", "mlflow", "optuna")
"""Packages in the recorded versions that do not compute a result."""


def model_words(run: RunRecord) -> str:
    """Words for the model in a methods section, such as `resnet, 18 layers, width 64`."""
    params = run.params
    words = params["model.name"]
    depth = int(params.get("model.depth", "0"))
    if depth and "model.width" in params:
        return f"{words}, {depth} layers, width {params['model.width']}"
    return f"{words}, {counted(depth, 'stage')}" if depth else words  # of timm's network


def methods(run: RunRecord) -> list[str]:
    """The methods section of a run in sentences: optimiser, schedule, augmentation, images, software and hardware."""
    start = start_words(run.params)
    return [
        f"Training started {start[0].lower()}{start[1:]}.",
        *([f"{scored_by_folds(run.num_folds)} {TOGETHER}"] if run.num_folds else []),
        _optimiser(run.params),
        _objective(run),
        _squares(run),
        *_test_views(run.params),
        _augmentation(run.params),
        *_machine(run),
    ]


def split_words(run: RunRecord, evaluation: RunRecord | None = None) -> str:
    """Words for the splits of a run in a methods section: their images, and where they came from if that is recorded.

    Args:
        run: that trained.
        evaluation: of it, which knows how many images test has.
    """
    tags = run.tags | ({Tag.NUM_TEST: str(evaluation.num_test)} if evaluation else {})
    present = {split: tags[name] for split, name in COUNTS.items() if name in tags}
    if run.num_folds:
        present["val"] = f"{present.pop('train')} train and"  # they are the same images
    sizes = ", ".join(f"{number} {split}" for split, number in present.items())
    if Tag.SPLIT_ORIGINS not in tags:  # of an earlier version
        return sizes
    origins: dict[str, str] = json.loads(tags[Tag.SPLIT_ORIGINS])
    came_from = (f"{split}: {origins.get(split, 'as the source has it')}" for split in present if split != "train")
    return "; ".join([sizes, *came_from])


def scored_by_folds(num_folds: int) -> str:
    """Words for what the val score of a run in folds is a score of, in a methods section or beside the score."""
    if num_folds == 1:
        return "One fold has run, and its images alone were scored, by a model that was not trained on them."
    return (
        f"Each image of val was scored by the model of its fold, which was not trained on it. So the val score is that "
        f"of {num_folds} single models; the {num_folds} together were not scored on val."
    )


def schedule_words(params: Mapping[str, str]) -> str:
    """Words for the schedule in a methods section, such as `30 epochs, of which the first 3 are warm-up`."""
    epochs, warmup, last = (int(params.get(f"train.{key}", "0")) for key in ("epochs", "warmup_epochs", "score_epoch"))
    words = counted(epochs, "epoch")
    if warmup:
        words += f", of which the first {warmup} {'is' if warmup == 1 else 'are'} warm-up"
    if last and last < epochs:
        words += f", left after epoch {last}"
    return words


def start_words(params: Mapping[str, str]) -> str:
    """Words for the first weights in a methods section, and which of them stay, such as `From random weights`."""
    weights = params.get("model.weights", "")
    start = f'From the weights "{weights}"' if weights else "From random weights"
    if not is_head_only(params):
        return start
    return f"{start}, of which the last layer alone was trained, on stored features of the rest"


def is_head_only(params: Mapping[str, str]) -> bool:
    """Whether a methods section is about a run that trained the last layer alone."""
    return params.get("train.head_only", "false") == "true"


def _optimiser(params: Mapping[str, str]) -> str:
    decay, batch = float(params["train.weight_decay"]), params["train.batch_size"]
    patience = int(params.get("train.patience", "0"))
    early = f", to end early after {counted(patience, 'epoch')} without a better val score" if patience else ""
    warms_up = params.get("train.warmup_epochs", "0") != "0"
    rise = "rises in a line during warm-up and falls along half a cosine after it"
    return (
        f"The optimiser was {_optimiser_words(params)} (highest learning rate {float(params['train.lr']):.3g}, weight "
        f"decay {decay:g}, batches of {batch} images) over {schedule_words(params)}; the learning rate "
        f"{rise if warms_up else 'falls along half a cosine from the first step on'}{early}. "
        f"{''.join(_of_the_backbone(params))}The seed was {params['train.seed']}."
    )


def _optimiser_words(params: Mapping[str, str]) -> str:
    if params.get("train.optimizer", "adamw") == "adamw":
        return "AdamW"
    momentum = float(params["train.momentum"])
    return f"SGD with Nesterov momentum {momentum:g}" if momentum else "SGD without momentum"


def _of_the_backbone(params: Mapping[str, str]) -> Iterator[str]:
    """Sentences on what was trained otherwise before the last layer."""
    if frozen := int(params.get("train.freeze_epochs", "0")):
        epochs = "the first epoch" if frozen == 1 else f"the first {frozen} epochs"
        yield f"In {epochs} the last layer alone was trained. "
    scale, decay = (float(params.get(f"train.{key}", "1")) for key in ("backbone_lr_scale", "layer_decay"))
    if scale < 1:
        yield f"The layers before the last one had {scale:g} times the learning rate. "
    if decay < 1:
        yield f"From each block to the one before it the learning rate was multiplied by {decay:g}. "


def _objective(run: RunRecord) -> str:
    params = run.params
    smoothing = float(params["train.label_smoothing"])
    parts = [
        f"label smoothing {smoothing:g}{_spread(params)}" if smoothing else "no label smoothing",
        _class_weights(run),
        *_sampling(params),
        _averaging(run),
    ]
    if dropout := float(params.get("model.dropout", "0")):
        parts.append(f"dropout {dropout:g} before the last layer")
    assumed = f" {words}" if (words := assumed_frequencies(params)) else ""
    return f"The loss was {_loss(params)} with {', '.join(parts[:2])}; {'; '.join(parts[2:])}.{assumed}"


def assumed_frequencies(params: Mapping[str, str]) -> str:
    """Words for how frequent classes are where a run's probabilities hold, in a methods section or beside them.

    Returns:
        A sentence; "" where classes are as frequent as in train.
    """
    is_adjusted = params.get("train.loss") == "logit_adjusted"
    tau = float(params["train.logit_adjustment"]) if is_adjusted else 1.0
    if is_adjusted and tau not in (0, 1):
        return (
            f"Its probabilities hold where classes are as frequent as their shares of train to the power {1 - tau:.4g}."
        )
    is_even = params.get("train.class_weights") == "auto" or params.get("train.sampling") == "balanced"
    return "Its probabilities hold where every class is equally frequent." if is_even or (is_adjusted and tau) else ""


def _loss(params: Mapping[str, str]) -> str:
    name = params.get("train.loss", "cross_entropy")  # runs of earlier versions have no other
    if name == "focal":
        return f"the focal loss (gamma {float(params['train.focal_gamma']):g})"
    if name == "logit_adjusted":
        return f"the logit-adjusted cross-entropy (tau {float(params['train.logit_adjustment']):g})"
    return "the cross-entropy"


def _spread(params: Mapping[str, str]) -> str:
    tau = float(params["train.logit_adjustment"]) if params.get("train.loss") == "logit_adjusted" else 0.0
    if not tau:
        return ""
    return " spread as the classes are in train" + ("" if tau == 1 else f", their shares to the power {tau:g}")


def _sampling(params: Mapping[str, str]) -> Iterator[str]:
    if params.get("train.sampling") == "balanced":
        yield "in each epoch as many images as train has were drawn, each class as often"


def _averaging(run: RunRecord) -> str:
    decay, epochs = float(run.params["train.ema_decay"]), int(run.params.get("train.average_epochs", "1"))
    averages = []
    if decay:
        averages.append(f"weights averaged with decay {decay:g} a step")
    if epochs > 1:
        what = "these averages" if decay else "weights"
        ends = min(epochs, run.best_epoch)  # before the kept epoch there may have been fewer
        averages.append(f"the mean of {what} at the ends of {counted(ends, 'epoch')} up to the kept one")
    return ", then ".join(averages) or "no averaging of weights"


def _class_weights(run: RunRecord) -> str:
    if run.params["train.class_weights"] == "none":
        return "no class weights"
    softened = any(
        float(run.params.get(key, "0")) for key in ("train.label_smoothing", "augment.mixup", "augment.cutmix")
    )
    what = "classes" if run.loss > 1 or not softened else "each class's share of every smoothed or mixed label"
    return f"{what} weighed by the inverse of their number of train images"


FITS = {
    "crop": "The largest centred square of each image was used",
    "pad": f"Each image was used whole, between bars of grey (level {PAD_LEVEL})",
    "squash": "Each image was used whole, stretched to a square",
}
"""`data.fit` in words."""


def _squares(run: RunRecord) -> str:
    low, _ = json.loads(run.params.get("augment.random_resized_crop", "[1, 1]"))
    resized = "; val and test were resized from train's larger squares" if run.squares < 2 and low < 1 else ""
    return f"{FITS[run.params.get('data.fit', 'crop')]}{resized}."


VIEWS = {
    "flips": "as it was and mirrored left and right",
    "orientations": "in all eight orientations of the square",
}
"""`data.test_views` in words; with one view there is nothing to say."""


def _test_views(params: Mapping[str, str]) -> Iterator[str]:
    if words := VIEWS.get(params.get("data.test_views", "one")):
        yield f"The model saw each image of val and test {words}, and answered with the mean of the probabilities."


def _augmentation(params: Mapping[str, str]) -> str:
    applied = list(_applied(params))
    if not applied:
        return "Train images were not augmented."
    of_features = "; features were mixed, not images" if is_head_only(params) and _value(params, "mixup") else ""
    return f"Train images were augmented by {', '.join(applied)}{of_features}."


def _applied(params: Mapping[str, str]) -> Iterator[str]:
    low, high = json.loads(params.get("augment.random_resized_crop", "[1, 1]"))
    if low < 1:
        ratio = " to ".join(f"{end:.3g}" for end in json.loads(params["augment.aspect_ratio"]))
        yield f"random crops of {low:g} to {high:g} of the area (width / height {ratio}), resized"
    for key, field in AugmentConfig.model_fields.items():
        value = _value(params, key)
        if key not in ("random_resized_crop", "aspect_ratio") and value:
            reported = next((about for about in field.metadata if isinstance(about, Reported)), Reported(f"{key} {{}}"))
            yield reported.words.format(value)


def _value(params: Mapping[str, str], key: str) -> Any:
    return json.loads(params.get(f"augment.{key}", "0"))


def _machine(run: RunRecord) -> Iterator[str]:
    versions, params = run.versions, run.params
    named = ", ".join(f"{name} {number}" for name, number in versions.items() if name not in UNNAMED)
    precision = f" in {params['train.precision']}" if params.get("train.precision", "auto") != "auto" else ""
    yield f"It ran{precision} on {device_words(run.device or 'an unknown device')}" + (
        f" with {named}." if named else "."
    )
    yield f"The code was imgcls {versions.get('imgcls', 'of an unknown version')}, {commit_words(run.tags)}."


def device_words(device: str) -> str:
    """Words for the device in a methods section; the record says `1 threads`, which stays equal between versions."""
    return device.replace(" 1 threads", " 1 thread")


def commit_words(tags: Mapping[str, str]) -> str:
    """Words for the commit of a run's code in a methods section, and whether files differed from it."""
    commit = tags.get(Tag.GIT_COMMIT, UNKNOWN)
    if commit in ("", UNKNOWN):
        reason = tags.get(Tag.GIT_UNKNOWN)
        return "at an unknown commit" + (f" ({reason})" if reason else "")
    state = {"true": " with changes that are not committed", "false": ""}
    dirty = tags.get(Tag.GIT_DIRTY, UNKNOWN)
    return f"commit {commit[:12]}" + state.get(dirty, "; whether files differed from it is not known")
