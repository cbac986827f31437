"""One held-out evaluation of one run: checks the run, writes the look down, opens the test split, scores, records."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from imgcls.data.held_out import HeldOut, Look
from imgcls.data.image_set import DecodedImages, Hashes
from imgcls.errors import DataError, InputError, SealedError
from imgcls.evaluation.evaluation_report import evaluation_report
from imgcls.evaluation.selection import Selection, selection_of
from imgcls.metrics import ACCURACY, Scores, metric_named, reported, score, val_scores
from imgcls.models.ensemble import Ensemble
from imgcls.record import TEST, Artifact, MetricName, Tag, best_name
from imgcls.reporting import html, image_figures, prediction_figures
from imgcls.reporting.cautions import caution_tags, flat_cautions
from imgcls.reporting.drawing import save_png
from imgcls.reporting.report import Picture, markdown
from imgcls.reporting.run_links import run_link, within_ui
from imgcls.reporting.run_scores import look_scores
from imgcls.run_record import RunRecord
from imgcls.runs.announce import announce
from imgcls.runs.folds import out_of_fold_logits
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import best_checkpoint, rebuild, same_place
from imgcls.runs.record_writer import prediction_table, temperature_metrics
from imgcls.runs.val_predictions import recorded_fit
from imgcls.statistics.per_class import per_class
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import TemperatureFit
from imgcls.text import counted
from imgcls.tracking.find_run import trained_record
from imgcls.tracking.recorded_looks import names_of, openings, write_down
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

IMAGES_PER_DIFFERENCE = 500
"""Elsewhere than where the run was trained, at most one val image in so many may be judged differently."""

TEMPERATURE = (MetricName.BEST_TEMPERATURE, MetricName.BEST_TEMPERATURE_GAIN)
"""What an evaluation says of the temperature; one of an earlier version does not."""

OF_LATER_VERSIONS = ("preprocessing", "temperature")
"""Entries that the checkpoints of earlier versions lack."""


@dataclass(frozen=True)
class Evaluation:
    """What the judge of a run found on its held-out test split.

    Attributes:
        record: of the evaluation.
        judged: the run that it judges.
        report: as Markdown.
        is_recorded: whether it is the result of an earlier evaluation, given again without a look.
    """

    record: RunRecord
    judged: RunRecord
    report: str
    is_recorded: bool = False

    @property
    def run_id(self) -> str:
        """Of the evaluation."""
        return self.record.run_id

    @property
    def val(self) -> Scores:
        """On val, of the same checkpoint."""
        return Scores.from_metrics(self.record.metrics, "val")

    @property
    def test(self) -> Scores:
        """On test."""
        return Scores.from_metrics(self.record.metrics, "test")

    def flat(self) -> dict[str, float | str | int]:
        """The evaluation under the record's names, for programs."""
        on_val, gap = self.val.metrics("val"), self.record.metrics[MetricName.VAL_TEST_GAP]
        return {
            "run_id": self.run_id,
            Tag.EVALUATED_RUN_ID: self.judged.run_id,
            Tag.TEST_LOOK: self.record.look,
            **{best_name(name): on_val[name] for name in (ACCURACY.on_val, self.judged.metric) if name in on_val},
            **on_val,
            **self.test.metrics("test"),
            **({} if math.isnan(gap) else {MetricName.VAL_TEST_GAP: gap}),
            **{name: self.record.metrics[name] for name in TEMPERATURE if name in self.record.metrics},
            **flat_cautions(self.record.tags),
        }


@dataclass(frozen=True)
class _Candidate:
    """A run that may be judged: checked, rebuilt, and its val score confirmed."""

    record: RunRecord
    prepared: Prepared
    model: nn.Module
    val_logits: NDArray[np.float32]
    fit: TemperatureFit
    selection: Selection


def evaluate(run_id: str, tracker: Tracker, *, again: bool = False) -> Evaluation:
    """Judges a run on its test split; this is a look, which is written down before an image is read.

    A run that was judged before on the same images keeps its result: the recorded one is given, without a look.

    Args:
        run_id: of a completed run, or of a sweep, which stands for its winner.
        tracker: where the run is and the evaluation goes.
        again: open the split once more although the run was judged before; a further look.

    Raises:
        InputError: whatever keeps this run from being judged; nothing is logged then.
    """
    record = trained_record(run_id, tracker)
    prepared = rebuild(record, tracker).as_scored(record)
    announce(prepared, tracker)
    test = _sealed(record, prepared)
    found = None if again else _recorded(record, test, tracker)
    if found is None:
        found = _look(_admit(record, prepared, tracker), test, tracker)
    try:
        _describe_judged(found, tracker)
    except Exception as error:  # the look is recorded, so its result is told in any case
        log.warning("the description of run %s does not show these scores: %s", record.run_id, error)
    return found


def _look(candidate: _Candidate, test: HeldOut, tracker: Tracker) -> Evaluation:
    """Opens the test split for a run that may be judged, and records what it finds."""
    record, prepared = candidate.record, candidate.prepared
    tags = {
        Tag.PARENT: record.run_id,
        Tag.EVALUATED_RUN_ID: record.run_id,
        Tag.TEST_FINGERPRINT: test.fingerprint(),
        Tag.NUM_TEST: str(len(test)),
        Tag.DATA_FINGERPRINT: prepared.dataset.fingerprint,
        Tag.SQUARES: str(prepared.dataset.squares),
        Tag.DEVICE: str(prepared.device),
        **caution_tags(record.tags),
    }
    name = f"evaluation of {record.name}"
    with tracker.start_run(record.experiment, kind="evaluation", name=name, tags=tags) as run:
        look = _write_down(run, tracker, test.hashes().hashes)
        log.info("look %d at this test split of %d images", look.number, len(test))
        return _judge(run, candidate, test.open(look), tracker)


def look_to_predict(record: RunRecord, images: Hashes, tracker: Tracker) -> RunRecord:
    """A look of the judge's at test images whose predictions by a run are to be shown; it has no scores.

    A completed look at this run that opened all of these images suffices, since their predictions by it are known.
    Otherwise this is a further look, which is written down before this function returns.

    Args:
        record: of the run that predicts.
        images: hashes of the test images.
        tracker: where the run is and the look goes.

    Returns:
        The evaluation that holds the look.

    Raises:
        SealedError: the tracker does not hold the look that was written.
    """
    earlier = _look_at_all(record, images, tracker)
    if earlier is not None:
        log.info("these test images were opened for this run before (look %d, %s)", earlier.look, earlier.run_id)
        return earlier
    num_images = len(set(names_of(images.digests)))
    tags = {
        Tag.PARENT: record.run_id,
        Tag.EVALUATED_RUN_ID: record.run_id,
        Tag.LOOK_FOR: "predictions",
        Tag.NUM_TEST: str(num_images),
        Tag.DATA_FINGERPRINT: record.fingerprint,
        **caution_tags(record.tags),
    }
    name = f"predictions by {record.name}"
    with tracker.start_run(record.experiment, kind="evaluation", name=name, tags=tags) as run:
        look = _write_down(run, tracker, images)
        if not look.is_recorded():
            raise SealedError(f"look {look.number} of run {run.run_id} is not in the tracker, so nothing is predicted")
        run.describe(f"{counted(num_images, 'test image')} predicted by run `{record.run_id}`, without scores.")
    log.info("look %d at a test split, at %s (%s)", look.number, counted(num_images, "image"), run.run_id)
    return tracker.get(run.run_id)


def _look_at_all(record: RunRecord, images: Hashes, tracker: Tracker) -> RunRecord | None:
    """A completed look at this run that opened all of these images."""
    wanted = set(names_of(images.digests))
    opened = {opening.run_id: opening.names or frozenset() for opening in openings(tracker)}
    looks = tracker.find({Tag.KIND: "evaluation", Tag.OUTCOME: "completed", Tag.EVALUATED_RUN_ID: record.run_id})
    return next((look for look in looks if wanted <= opened.get(look.run_id, frozenset())), None)


def _write_down(run: Run, tracker: Tracker, images: Hashes) -> Look:
    count = write_down(run, tracker, images)
    number = count.number
    run.set_tags({Tag.TEST_LOOK: str(number), Tag.NUM_TEST_ALIKE: str(count.num_alike)})

    def is_recorded() -> bool:
        return tracker.get(run.run_id).tags.get(Tag.TEST_LOOK) == str(number)

    return Look(run.run_id, number, is_recorded)


def _recorded(record: RunRecord, test: HeldOut, tracker: Tracker) -> Evaluation | None:
    """The latest look at this run on these test images that has a result."""
    tags = {Tag.EVALUATED_RUN_ID: record.run_id, Tag.TEST_FINGERPRINT: test.fingerprint()}
    found = tracker.find({Tag.KIND: "evaluation", Tag.OUTCOME: "completed", **tags})
    scored = [evaluation for evaluation in found if evaluation.has_test_scores]
    if not scored:
        return None
    earlier = scored[-1]
    log.info(
        "run %s was judged before (evaluation %s): its recorded result, and no new look; --again opens the split",
        record.run_id, earlier.run_id,
    )  # fmt: skip
    return Evaluation(earlier, record, tracker.read_text(earlier.run_id, Artifact.REPORT), is_recorded=True)


def _judge(run: Run, candidate: _Candidate, images: DecodedImages, tracker: Tracker) -> Evaluation:
    prepared, record = candidate.prepared, candidate.record
    names, val = prepared.dataset.class_names, prepared.dataset.val
    logits = prepared.predict(candidate.model, images)
    classes = per_class(images.labels, logits.argmax(axis=1), names, images.groups)
    predictions = Predictions(logits, images.labels, images.groups)
    temperature = candidate.fit.temperature
    on_val = score(Predictions(candidate.val_logits, val.labels, val.groups), temperature)
    on_test = score(predictions, temperature)
    metric = metric_named(record.metric)
    gap = on_val[metric.name] - on_test[metric.name]
    near_leaked = {name: num for name, num in record.metrics.items() if name == MetricName.NEAR_LEAKED}
    run.log_metrics({
        **on_val.metrics("val"), **on_test.metrics("test"), MetricName.VAL_TEST_GAP: gap, **near_leaked,
        **temperature_metrics(candidate.fit),
    })  # fmt: skip
    table = prediction_table(images, logits, names, temperature)
    run.log_text(Artifact.TEST_PREDICTIONS, table.to_csv(index=False))
    run.log_text(Artifact.PER_CLASS, classes.to_csv(index=False))
    pictures = _pictures(images, predictions, names, temperature)
    for name, picture in pictures.items():
        run.log_bytes(name, picture.png)
    if images.groups:
        run.set_tags({
            Tag.NUM_VAL_GROUPS: str(on_val.num_groups), Tag.NUM_TEST_GROUPS: str(on_test.num_groups),
        })  # fmt: skip
    scores = {"test": on_test, "val": on_val}
    evaluation = tracker.get(run.run_id)
    links = [run_link("The run judged", record, tracker), run_link("This evaluation", evaluation, tracker)]
    report = evaluation_report(evaluation, candidate.selection, classes, scores, pictures, links)
    as_text = markdown(*report)
    run.log_text(Artifact.REPORT, as_text)
    run.log_text(Artifact.REPORT_HTML, html.page(*report))
    text = markdown("", None, report.sections)
    run.describe(f"{look_scores(evaluation, record.metric)}\n\n{within_ui(text, tracker)}")
    return Evaluation(evaluation, record, as_text)


def _describe_judged(of: Evaluation, tracker: Tracker) -> None:
    """The description of the run judged begins with its test scores; those of an earlier look make room."""
    record = tracker.get(of.judged.run_id)
    said = record.tags.get(Tag.DESCRIPTION, "")
    first, _, rest = said.partition("\n\n")
    scores = look_scores(of.record, record.metric)
    if first != scores:
        before = rest if first.startswith(f"**{TEST}") else said
        tracker.amend(record.run_id).describe(f"{scores}\n\n{before}".rstrip())


def _pictures(
    images: DecodedImages, predictions: Predictions, names: tuple[str, ...], temperature: float
) -> dict[str, Picture]:
    """Artifact's name -> figure."""
    probs = softmax(predictions.logits.astype(np.float64), axis=1)
    right = f"{int(predictions.hits.sum())} of {len(images)} test images are predicted right."
    with_it = ", without and with temperature" if temperature != 1 else ""
    matrix = prediction_figures.confusion_matrix(predictions.confusion(), names)
    reliability = prediction_figures.reliability_diagram(predictions, temperature)
    mistakes = image_figures.worst_mistakes(images.pixels, images.labels, probs, images.keys, names)
    return {
        Artifact.CONFUSION_MATRIX: Picture(
            save_png(matrix, cut=False),
            f"Confusion matrix of the test images. {right} The table below has the classes.",
            "Each row is a true class, each column a predicted one. The colour is the share of the true class.",
            file=Artifact.CONFUSION_MATRIX,
        ),
        Artifact.RELIABILITY: Picture(
            save_png(reliability, cut=False),
            f"Accuracy against confidence on test{with_it}. The table above has the errors (ECE).",
            "A point below the diagonal means: less often right than its confidence says.",
            file=Artifact.RELIABILITY,
        ),
        Artifact.WORST_MISTAKES: Picture(
            save_png(mistakes, cut=False),
            f"Test images that are predicted wrong, the surest ones. {right}",
            is_drawing=False,
            file=Artifact.WORST_MISTAKES,
        ),
    }  # fmt: skip


# --- before the split is opened ---------------------------------------------------------------------------------


def _sealed(record: RunRecord, prepared: Prepared) -> HeldOut:
    if prepared.dataset.test is None:
        raise DataError(
            f"{prepared.experiment.data.source} has no test split, so there is nothing to evaluate on; "
            f"val is never used instead (run {record.run_id})"
        )
    return prepared.dataset.test


def _admit(record: RunRecord, prepared: Prepared, tracker: Tracker) -> _Candidate:
    """Everything that can be refused is refused here, while the test split is still sealed."""
    checkpoint = best_checkpoint(record, tracker)
    _confirm_what_it_says(checkpoint, record, prepared)
    model = prepared.model(with_weights=False)
    try:
        model.load_state_dict(checkpoint["model"])
    except (KeyError, RuntimeError) as error:
        raise InputError(f"the checkpoint of run {record.run_id} does not fit its config: {error}") from error
    model = prepared.device.place(model)
    if isinstance(model, Ensemble):
        val_logits = out_of_fold_logits(model, prepared)
    else:
        val_logits = prepared.predict(model, prepared.dataset.val)
    _confirm_val_score(record, prepared, val_logits)
    fit = recorded_fit(record, tracker)
    return _Candidate(record, prepared, model, val_logits, fit, selection_of(record, tracker))


def _confirm_what_it_says(checkpoint: Mapping[str, object], record: RunRecord, prepared: Prepared) -> None:
    """What a checkpoint says of itself must be what the record and the images say: it is used elsewhere too."""
    recorded = {
        "epoch": record.best_epoch,
        "class_names": list(prepared.dataset.class_names),
        "preprocessing": prepared.preprocessing().to_plain(),
        "temperature": record.temperature,
    }
    for name, expected in recorded.items():
        if name in OF_LATER_VERSIONS and name not in checkpoint:
            continue
        if checkpoint.get(name) != expected:
            raise InputError(
                f"the checkpoint of run {record.run_id} says {name} {checkpoint.get(name)!r}, and the record says "
                f"{expected!r}; it is not the one that was tracked: put a sound copy in its place, or train again"
            )


def _confirm_val_score(record: RunRecord, prepared: Prepared, logits: NDArray[np.float32]) -> None:
    """The checkpoint must earn the val score that the tracker holds, or it is not the run's."""
    labels = prepared.dataset.val.labels
    scores = val_scores(Predictions(logits, labels), record.metric)
    by_features = prepared.experiment.train.head_only
    if same_place(record, prepared) and not by_features:
        names = reported(record.metric)
        if any(scores[name] != record.best(name) for name in names):
            raise InputError(
                f"run {record.run_id} was tracked with "
                f"{' and '.join(f'{name} {record.best(name)!r}' for name in names)}, but its checkpoint gives "
                f"{' and '.join(repr(scores[name]) for name in names)} on the same device, threads and versions; "
                "the checkpoint or the code is not the one that was tracked"
            )
        return
    accuracy, tracked = scores[ACCURACY.on_val], record.best(ACCURACY.on_val)
    allowed = -(-len(labels) // IMAGES_PER_DIFFERENCE)
    differing = round(abs(accuracy - tracked) * len(labels))
    if differing > allowed:
        raise InputError(
            f"run {record.run_id} was tracked with {ACCURACY.on_val} {tracked:.4f}, but its checkpoint gives "
            f"{accuracy:.4f} here: {differing} of {len(labels)} images differ, where {allowed} may between machines"
        )
    how = "from stored features" if by_features else "on another device or with other versions"
    log.info("%s recomputed: %.4f (tracked %.4f, %s)", ACCURACY.on_val, accuracy, tracked, how)
