"""The record: the public names that a run leaves in MLflow; docs/record.md is made from it."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

from imgcls.stored_names import BEST, PROCESS, stored_name

Kind = Literal["sweep", "trial", "train", "confirm", "fold", "evaluation", "rerun", "init"]
Outcome = Literal["running", "completed", "pruned", "paused", "interrupted", "failed"]

STATUS: dict[Outcome, str] = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "paused": "SCHEDULED",  # MLflow's UI shows a clock; of KILLED it shows a red cross
    "interrupted": "KILLED",
    "failed": "FAILED",
}
UNKNOWN = "unknown"
"""Value of a tag whose fact could not be found out, such as `imgcls.git_commit`; `imgcls.git_unknown` says why."""

SWEEP: tuple[Kind, ...] = ("sweep",)
TRAINED: tuple[Kind, ...] = ("train", "trial", "confirm", "fold", "rerun")
WITH_IMAGES: tuple[Kind, ...] = (*SWEEP, *TRAINED)
JUDGED: tuple[Kind, ...] = ("evaluation",)
BELOW: tuple[Kind, ...] = ("trial", "confirm", "fold", "rerun", *JUDGED)
LOOKED: tuple[Kind, ...] = ("init",)
ALL: tuple[Kind, ...] = (*WITH_IMAGES, *JUDGED, *LOOKED)


class PublicName(NamedTuple):
    """A name of the record that other programs may read.

    Attributes:
        sort: `tag`, `metric`, `artifact` or `version tag`.
        name: as stored in MLflow.
        kinds: of the runs that may bear it.
        meaning: in one sentence.
    """

    sort: str
    name: str
    kinds: tuple[Kind, ...]
    meaning: str


PUBLIC_NAMES: list[PublicName] = []
"""All public names of the record, in the order of this file."""


def _named(sort: str, name: str, kinds: tuple[Kind, ...], meaning: str) -> str:
    PUBLIC_NAMES.append(PublicName(sort, name, kinds, meaning))
    return name


def _metric(name: str, kinds: tuple[Kind, ...], meaning: str) -> str:
    _named("metric", stored_name(name), kinds, meaning)
    return name


_tag, _artifact, _version_tag = partial(_named, "tag"), partial(_named, "artifact"), partial(_named, "version tag")


class Tag:
    """The record's names of tags, of a run."""

    # What it is
    KIND = _tag("imgcls.kind", ALL, "sweep, trial, train, confirm, fold, evaluation, rerun or init")
    OUTCOME = _tag("imgcls.outcome", ALL, "running, completed, pruned, paused, interrupted or failed")
    REASON = _tag("imgcls.reason", ALL, "why it was interrupted, paused or failed, or pruned after a pause")
    PARENT = _tag(
        "mlflow.parentRunId", BELOW, "run id of its sweep, or of the run that it judges, repeats or is a fold of"
    )
    DESCRIPTION = _tag("mlflow.note.content", ALL, "what MLflow's UI shows on the run's page: a summary, or its report")
    CONFIG_HASH = _tag(
        "imgcls.config_hash",
        WITH_IMAGES,
        "digest of the experiment's keys; of a trained run, of those that say what is trained",
    )

    # Who runs it, on what
    HOST = _tag("imgcls.host", ALL, "name of the machine")
    PID = _tag("imgcls.pid", ALL, "number of the process")
    PROCESS = _tag(
        PROCESS,
        ALL,
        "JSON: `versions` (package -> version of what the result depends on), `claims` (digest of the folder of locks "
        "that says whether a process writes the run), `heartbeat` (when its process last said that it was alive, in "
        "seconds since 1970), `identity` (digest that two runs share if they do the same work) and `opening` (drawn "
        "at random for a run on a tracking server, so that it is opened once); earlier versions had a tag for each, "
        "such as `imgcls.versions`",
    )
    USER = _tag("mlflow.user", ALL, "who ran it")
    SOURCE_NAME = _tag("mlflow.source.name", ALL, "imgcls")
    SOURCE_TYPE = _tag("mlflow.source.type", ALL, "LOCAL")
    DEVICE = _tag("imgcls.device", (*TRAINED, *JUDGED), "processor and threads, or the accelerator's name")
    NUM_PROCESSES = _tag(
        "imgcls.num_processes",
        TRAINED,
        "processes that trained it together, each on its part of every batch; absent means 1",
    )
    GIT_COMMIT = _tag("imgcls.git_commit", ALL, "commit of the repository around the project, or `unknown`")
    MLFLOW_COMMIT = _tag("mlflow.source.git.commit", ALL, "the same where it is known, for MLflow's UI")
    GIT_DIRTY = _tag("imgcls.git_dirty", ALL, "whether files differ from the commit: `true`, `false` or `unknown`")
    GIT_CHANGED = _tag("imgcls.git_changed", ALL, "files that differ, the first 20")
    GIT_UNKNOWN = _tag("imgcls.git_unknown", ALL, "why git did not tell the commit or the state of the files")

    # Its images
    DATA_FINGERPRINT = _tag("imgcls.data_fingerprint", ALL, "digest of the train and val images with their labels")
    TEST_FINGERPRINT = _tag("imgcls.test_fingerprint", ALL, "digest of the test images, where there is a test split")
    SPLIT_ORIGINS = _tag(
        "imgcls.split_origins", WITH_IMAGES, "JSON, split -> where it came from if not from the source"
    )
    NUM_TRAIN = _tag(
        "imgcls.num_train", WITH_IMAGES, "train images; with folds, those of train and val, as is `imgcls.num_val`"
    )
    NUM_VAL = _tag("imgcls.num_val", WITH_IMAGES, "val images")
    NUM_TEST = _tag("imgcls.num_test", JUDGED, "test images that it opened")
    NUM_VAL_GROUPS = _tag("imgcls.num_val_groups", ALL, "groups of val images, where `data.groups` names groups")
    NUM_TEST_GROUPS = _tag("imgcls.num_test_groups", JUDGED, "groups of test images, where there are groups")
    NUM_SKIPPED = _tag("imgcls.num_skipped", WITH_IMAGES, "files left out because they cannot be read")
    NUM_IGNORED = _tag("imgcls.num_ignored", WITH_IMAGES, "files left out because they are not images")
    NUM_SEVERAL_FRAMES = _tag("imgcls.num_several_frames", WITH_IMAGES, "images of which only the first frame is used")
    NUM_LEAKED = _tag("imgcls.num_leaked", WITH_IMAGES, "val and test images with the pixels of another split's image")
    LEAKS = _tag("imgcls.leaks", ALL, "which splits share images or groups, in one line, where any do")
    NUM_NEAR_LEAKED = _tag("imgcls.num_near_leaked", ALL, "val and test images that look like one of another split")
    NUM_NOT_COMPARED = _tag(
        "imgcls.num_not_compared", WITH_IMAGES, "val and test images too plain to count among those"
    )
    NUM_OPENED_BEFORE = _tag(
        "imgcls.num_opened_before", ALL, "train and val images that an earlier look opened as test images, or alike"
    )
    SQUARES = _tag("imgcls.squares", ALL, "number of the format in which images became squares; absent means 1")
    LOSS = _tag("imgcls.loss", WITH_IMAGES, "number of the definition of the optimised loss; absent means 1")
    DATASET_SPLIT = _tag("mlflow.data.context", TRAINED, "of a data set that is linked to the run: train or val")

    BEST_SHA256 = _tag(
        "imgcls.best_sha256", TRAINED, "SHA-256 of `checkpoints/best.pt`, in hexadecimal; compared before it is used"
    )
    NO_GRAD_CAM = _tag("imgcls.no_grad_cam", TRAINED, "why a run with figures of val has no `figures/val_grad_cam.png`")

    ENDED_EARLY = _tag(
        "imgcls.ended_early",
        ("trial",),
        "how much was trained, such as `3 of 30 epochs` or `2 of 5 folds`, where a budget ended it",
    )
    NUM_FOLDS = _tag("imgcls.num_folds", ("trial",), "folds that have run, where it ended early; absent: all of them")
    BUDGET = _tag("imgcls.budget", SWEEP, "seconds that its latest sitting had in all; absent without a budget")
    BUDGET_CUT = _tag("imgcls.budget_cut", SWEEP, "what the budget had no time for, in words; absent where all fitted")

    # A sweep and what is below it
    STUDY = _tag("imgcls.study", ("sweep", "trial", "confirm"), "name of the Optuna study")
    TRIAL = _tag("imgcls.trial", ("trial", "confirm"), "number of the trial, or of the one that is confirmed")
    VALUES = _tag("imgcls.values", ("trial",), "what the sweep drew for it, `key = value` with commas between")
    FOLD = _tag("imgcls.fold", ("fold",), "number of the fold that is its val, from 1")
    BEST_RUN_ID = _tag("imgcls.best_run_id", SWEEP, "run id of the winner; `val/SCORE_best` are its scores")
    BEST_TRIAL_RUN_ID = _tag("imgcls.best_trial_run_id", SWEEP, "run id of the trial that val ranked first")
    NUM_LOSSES = _tag(
        "imgcls.num_losses",
        ("trial",),
        "how often a process was lost that worked on the trial; absent where none was",
    )
    NUM_TRIALS_WANTED = _tag("imgcls.num_trials_wanted", SWEEP, "trials asked for; with fewer, its time was over")
    NUM_WORKERS = _tag(
        "imgcls.num_workers", SWEEP, "trials side by side when it began; earlier versions had no such tag"
    )
    ENGINE = _tag(
        "imgcls.engine", SWEEP, "`ray` where a Ray cluster trained its latest trials; absent: processes of one machine"
    )
    WARM_START_RUN_ID = _tag("imgcls.warm_start_run_id", SWEEP, "run id of the earlier sweep from which it started")
    WARM_START_TRIALS = _tag(
        "imgcls.warm_start_trials", SWEEP, "trials of that sweep whose configurations came first, with commas"
    )
    NUM_EARLIER_TRIALS = _tag(
        "imgcls.num_earlier_trials",
        SWEEP,
        "trials of earlier sweeps on the same val images, from which it started; 0 where those had other val images",
    )
    COMPARED_AFTER = _tag(
        "imgcls.compared_after",
        SWEEP,
        "epoch or fold after which importances compare the trials, such as `epoch 3`; absent where trials do not pause",
    )
    CONFIRMED_RUN_ID = _tag("imgcls.confirmed_run_id", SWEEP, "run id of the winner of the latest confirmation")
    CONFIRMED_TRIALS = _tag("imgcls.confirmed_trials", SWEEP, "trials that it compared, the best first, with commas")

    # A look at the test split, and a repeat
    EVALUATED_RUN_ID = _tag("imgcls.evaluated_run_id", JUDGED, "run id of the run that it judges")
    TEST_LOOK = _tag("imgcls.test_look", JUDGED, "ordinal of this opening of the test split, from 1")
    LOOK_FOR = _tag("imgcls.look_for", JUDGED, "`predictions` of a look that has no scores; absent means scores")
    NUM_TEST_ALIKE = _tag(
        "imgcls.num_test_alike", JUDGED, "test images that look like those of looks not counted in it"
    )
    REPEATED_RUN_ID = _tag("imgcls.repeated_run_id", ("rerun",), "run id of the original")
    VERIFIED = _tag("imgcls.verified", ("rerun",), "how it compares with the original: bitwise, within tolerance or no")


class MetricName:
    """The record's names of metrics; the step of each is the number of completed epochs.

    Those that begin with `best/` are stored otherwise in MLflow: see `imgcls.stored_names`.
    """

    TRAIN_LOSS = _metric("train/loss", TRAINED, "each epoch: mean loss in nats over train, as optimised")
    TRAIN_LR = _metric("train/lr", TRAINED, "each epoch: learning rate of its last step")
    VAL = _metric("val/SCORE", (*TRAINED, *JUDGED), "on val, each epoch; of an evaluation, of the epoch judged")
    EPOCH_SECONDS = _metric("epoch_seconds", TRAINED, "each epoch: seconds, validation included")
    IMAGES_PER_SECOND = _metric("images_per_second", TRAINED, "each epoch: train images in a second of training")
    BEST_EPOCH = _metric("best/epoch", WITH_IMAGES, "the epoch whose weights are kept; of a sweep, its winner's")
    BEST = _metric("best/val/SCORE", WITH_IMAGES, "`val/SCORE` at that epoch; of a sweep, its winner's")
    BEST_LOW = _metric(
        "best/val/SCORE_low",
        WITH_IMAGES,
        "lower end of its 95 % interval; of the metric that selects, and with groups of the accuracy",
    )
    BEST_HIGH = _metric("best/val/SCORE_high", WITH_IMAGES, "upper end of that interval")
    NEAR_LEAKED = _metric(Tag.NUM_NEAR_LEAKED, ALL, "the tag as a metric, so that MLflow's UI can sort by it")
    BEST_TEMPERATURE = _metric(
        "best/temperature", ALL, "by which logits are divided for calibrated probabilities; 1 changes nothing"
    )
    BEST_TEMPERATURE_GAIN = _metric(
        "best/temperature_gain",
        ALL,
        "by how much it raises twice the log-likelihood of val; the temperature stays 1 if the gain is at most 3.84",
    )
    NUM_TRIALS = _metric("num_trials", SWEEP, "trials that have ended")
    BEST_TRIAL = _metric("best_trial/SCORE", SWEEP, "`val/SCORE` of the trial that val ranked first, at its kept epoch")
    CONFIRM_MEAN = _metric("confirm/mean", SWEEP, "mean of the metric over the fresh seeds of the winner")
    CONFIRM_STD = _metric("confirm/std", SWEEP, "its standard deviation over them; NaN of one seed")
    CONFIRM_OPTIMISM = _metric("confirm/optimism", SWEEP, "best trial's metric minus `confirm/best_trial_mean`")
    CONFIRM_BEST_TRIAL_MEAN = _metric(
        "confirm/best_trial_mean", SWEEP, "mean over fresh seeds with the best trial's keys"
    )
    CONFIRM_NUM_SEEDS = _metric("confirm/num_seeds", SWEEP, "fresh seeds of each configuration")
    CONFIRM_NUM_CONFIGURATIONS = _metric("confirm/num_configurations", SWEEP, "configurations compared")
    TEST = _metric("test/SCORE", JUDGED, "on the test images")
    TEST_ACCURACY = _metric("test/accuracy", JUDGED, "share of the test images predicted right")
    LOW = _metric("SPLIT/SCORE_low", JUDGED, "lower end of the 95 % interval of a score on val or test")
    HIGH = _metric("SPLIT/SCORE_high", JUDGED, "upper end of that interval")
    CALIBRATED = _metric("SPLIT/calibrated_SCORE", JUDGED, "`loss` or `ece` of the probabilities with temperature")
    VAL_TEST_GAP = _metric(
        "val_test_gap",
        JUDGED,
        "score that selected the run, on val minus on test; of earlier versions, always the accuracy",
    )


class Artifact:
    """The record's names of artifacts, of a run."""

    CONFIG = _artifact("config.toml", WITH_IMAGES, "the whole configuration, which feeds a new run as it is")
    BEST = _artifact("checkpoints/best.pt", TRAINED, "kept epoch: weights, classes, preprocessing, temperature")
    LAST = _artifact("checkpoints/last.pt", TRAINED, "state from which an interrupted run goes on")
    EPOCH = _artifact("checkpoints/epoch_{:04d}.pt", TRAINED, "weights of one epoch, from `train.save_from_epoch` on")
    VAL_PREDICTIONS = _artifact("predictions/val.csv", TRAINED, "a row per val image, at the epoch kept")
    VAL_PER_CLASS = _artifact("report/val_per_class.csv", TRAINED, "precision, recall and F1 of each class on val")
    LABEL_ERRORS = _artifact("report/label_errors.csv", TRAINED, "val images whose labels may be wrong")
    TEST_PREDICTIONS = _artifact("predictions/test.csv", JUDGED, "a row per test image")
    IMAGES_PAGE = _artifact("report/images.html", LOOKED, "the page about the images of a folder, with samples of them")
    PROPOSED = _artifact("experiment.toml", LOOKED, "the experiment file as it was written, with its reasons")
    REPORT = _artifact("report/report.md", ("sweep", "evaluation", "rerun"), "the report as Markdown")
    REPORT_HTML = _artifact("report/report.html", ("sweep", "evaluation"), "the report as one page with its figures")
    NEAR_DUPLICATES = _artifact("report/near_duplicates.csv", ("sweep", "train"), "images that look alike")
    LEADERBOARD = _artifact("report/leaderboard.csv", SWEEP, "a row per trial, the best first")
    IMPORTANCES = _artifact("report/importances.json", SWEEP, "key -> share of the metric's variation that it explains")
    IMPORTANCE_RANGES = _artifact("report/importance_ranges.json", SWEEP, "key -> range of that share in resamples")
    WARM_START = _artifact("report/warm_start.json", SWEEP, "where it started, if not from its own values alone")
    PER_CLASS = _artifact("report/per_class.csv", JUDGED, "precision, recall and F1 of each class on test")
    TEST_IMAGES = _artifact("report/test_images.txt", JUDGED, "16 hex digits of the digest of each image, a line each")
    TEST_SKETCHES = _artifact("report/test_sketches.npy", JUDGED, "uint8 (N, 272), sketches that show copies of them")
    SEALED_IMAGES = _artifact(
        "report/sealed_test_images.txt",
        WITH_IMAGES,
        "16 hex digits of the digest of each image of the sealed test split, a line each, sorted",
    )
    SEALED_SKETCHES = _artifact(
        "report/sealed_test_sketches.npy", WITH_IMAGES, "uint8 (N, 272), sketches that show copies of them"
    )
    CURVES = _artifact("figures/curves.png", TRAINED, "the loss and the metric that selects, of each epoch")
    TRAINING_SAMPLE = _artifact("figures/training_sample.png", TRAINED, "train images after augmentation, with labels")
    VAL_MISTAKES = _artifact("figures/val_mistakes.png", TRAINED, "the surest wrong predictions on val")
    VAL_GRAD_CAM = _artifact("figures/val_grad_cam.png", TRAINED, "Grad-CAM maps of the surest mistakes")
    VAL_LABEL_ERRORS = _artifact("figures/val_label_errors.png", TRAINED, "val images whose labels are likely wrong")
    VAL_RELIABILITY = _artifact("figures/val_reliability.png", TRAINED, "confidence against accuracy on val")
    VAL_CONFUSION_MATRIX = _artifact("figures/val_confusion_matrix.png", TRAINED, "confusion matrix of val")
    NEAR_DUPLICATES_FIGURE = _artifact("figures/near_duplicates.png", ("sweep", "train"), "those of train and val")
    DIFFERENT_CLASSES = _artifact(
        "figures/different_classes_{}.png", ("sweep", "train"), "those of a split, two classes"
    )
    CONFUSION_MATRIX = _artifact("figures/confusion_matrix.png", JUDGED, "which class is taken for which")
    RELIABILITY = _artifact(
        "figures/reliability.png", JUDGED, "confidence against accuracy, without and with temperature"
    )
    WORST_MISTAKES = _artifact("figures/worst_mistakes.png", JUDGED, "the surest wrong predictions")
    PLOTS = _artifact(
        "figures/search.html",
        SWEEP,
        "page on the searched values: those of the best trials, what mattered, each key by itself, all keys at once",
    )


class VersionTag:
    """The record's names of tags of a registered version, besides tags of its run that it repeats."""

    VERSIONS = _version_tag("imgcls.versions", TRAINED, "JSON, package -> version with which its run was trained")
    NUM_PROVED = _version_tag("imgcls.num_proved", TRAINED, "val images whose bytes it was asked in its proof")
    LARGEST_DIFFERENCE = _version_tag(
        "imgcls.largest_difference", TRAINED, "largest difference of a probability from the run's own in that proof"
    )
    ONNX_SHA256 = _version_tag("imgcls.onnx_sha256", TRAINED, "SHA-256 of the ONNX file, in hexadecimal")
    CHALLENGE = _version_tag("imgcls.challenge", TRAINED, "numbers by which it took its alias from another version")
    FORCED = _version_tag("imgcls.forced", TRAINED, "the same where they did not suffice, and `--force` was given")


BEST_TRIAL, CONFIRM, TEST = "best_trial/", "confirm/", "test/"
"""How the names of groups of metrics begin."""


def ends_of(name: str) -> tuple[str, str]:
    """The record's names for the ends of a score's interval: `val/loss_low` and `val/loss_high` for `val/loss`."""
    return f"{name}_low", f"{name}_high"


def best_name(metric: str) -> str:
    """The record's name of a val metric at the kept epoch: `best/val/accuracy` for `val/accuracy`."""
    return BEST + metric
