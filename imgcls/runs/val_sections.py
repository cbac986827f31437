"""Sections of a report on what a run gets wrong on val, from its record: sentences, tables and pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.record import Artifact, Tag
from imgcls.reporting.class_table import ABSENT_CLASSES, class_table
from imgcls.reporting.image_figures import surest_mistakes
from imgcls.reporting.methods_section import assumed_frequencies
from imgcls.reporting.report import Block, Picture, Section
from imgcls.reporting.tables import escaped, markdown_table
from imgcls.run_record import RunRecord
from imgcls.runs.val_figures import LAST_FIGURE
from imgcls.runs.val_predictions import as_logits, recorded_fit, recorded_predictions
from imgcls.statistics.calibration import expected_calibration_error, reliability
from imgcls.statistics.label_errors import label_errors
from imgcls.statistics.per_class import per_class
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import probabilities
from imgcls.text import counted
from imgcls.tracking.store import Tracker

NUM_CONFUSIONS, NUM_ROWS = 3, 10
"""Most frequent confusions that are named, and most mistakes, and likely label errors, in a table."""

NO_PICTURES = (
    "This run left no pictures of val. If `report.figures` is `none`, set it to `winner`. Then type the same "
    "`imgcls sweep` again, which draws them."
)
"""What a report says where its run has numbers on val alone."""


def val_sections(record: RunRecord, tracker: Tracker) -> list[Section]:
    """The sections on a run's mistakes on val, with its pictures where it has them; none for earlier versions' runs.

    Args:
        record: of a completed run.
        tracker: where it is.
    """
    if not tracker.has_artifact(record.run_id, Artifact.VAL_PER_CLASS):
        return []
    of = _OnVal(record, tracker, tracker.has_artifact(record.run_id, LAST_FIGURE))
    return [
        Section("Classes, on val", list(_classes(of))),
        Section("Mistakes on val", list(_mistakes(of))),
        Section("Labels that are likely wrong", list(_label_errors(of))),
        Section("Confidence on val", list(_confidence(of))),
        *([Section("Training images", list(_training(of)))] if of.has_pictures else []),
    ]


@dataclass(frozen=True, eq=False)
class _OnVal:
    """What a run left of val."""

    record: RunRecord
    tracker: Tracker
    has_pictures: bool

    @cached_property
    def table(self) -> pd.DataFrame:
        return recorded_predictions(self.record, self.tracker)

    @cached_property
    def names(self) -> list[str]:
        return [name.removeprefix("prob/") for name in self.table.columns if name.startswith("prob/")]

    @cached_property
    def predictions(self) -> Predictions:
        return as_logits(self.table)

    @cached_property
    def temperature(self) -> float:
        return recorded_fit(self.record, self.tracker).temperature

    @cached_property
    def probs(self) -> NDArray[np.float64]:
        """Float (N, K), with temperature."""
        return probabilities(self.predictions.logits, self.temperature)

    def picture(self, name: str, alt: str, caption: str = "", *, is_drawing: bool = False) -> Iterator[Picture]:
        """A picture of the run; nothing where it has none."""
        if self.has_pictures:
            with self.tracker.fetch(self.record.run_id, name) as path:
                yield Picture(path.read_bytes(), alt, caption, is_drawing, name)


def _classes(of: _OnVal) -> Iterator[Block]:
    hits, confusion = of.predictions.hits, of.predictions.confusion()
    np.fill_diagonal(confusion, 0)
    right = f"Of {len(hits)} val images, {int(hits.sum())} are predicted right."
    most = [divmod(int(place), len(of.names)) for place in np.argsort(-confusion, axis=None, kind="stable")]
    found = [
        f"`{_code(of.names[truth])}` taken for `{_code(of.names[taken])}` ({counted(int(num), 'image')})"
        for truth, taken in most[:NUM_CONFUSIONS]
        if (num := confusion[truth, taken])
    ]
    if not of.has_pictures:
        yield NO_PICTURES
    yield f"{right} The most frequent mistakes are: {', '.join(found)}." if found else right
    alt = f"Confusion matrix of the val images. {right} Its counts follow from {Artifact.VAL_PREDICTIONS} of the run."
    caption = "Each row is a true class, each column a predicted one. The colour is the share of the true class."
    yield from of.picture(Artifact.VAL_CONFUSION_MATRIX, alt, caption, is_drawing=True)
    yield class_table(per_class(of.predictions.labels, of.predictions.classes, of.names, of.predictions.groups))
    yield ABSENT_CLASSES


def _mistakes(of: _OnVal) -> Iterator[Block]:
    if of.predictions.hits.all():
        yield "Every val image is predicted right."
        return
    labels, num_wrong = of.predictions.labels, int((~of.predictions.hits).sum())
    above = " Above each image stand its label, the predicted class and its probability, below it its name."
    yield (
        "These are the wrong predictions of the highest confidence, the surest first. Their probabilities are "
        "calibrated: the logits are divided by the temperature." + (above if of.has_pictures else "")
    )
    alt = f"Val images that are predicted wrong, the surest of {num_wrong}, each with its label and its prediction."
    yield from of.picture(Artifact.VAL_MISTAKES, alt)
    yield markdown_table(
        ("image", "label", "predicted", "its probability"),
        [
            (str(of.table["image"][row]), of.names[labels[row]], of.names[probs.argmax()], f"{probs.max():.1%}")
            for row in surest_mistakes(labels, of.probs)[:NUM_ROWS].tolist()
            for probs in (of.probs[row],)
        ],
    )
    if of.has_pictures:
        yield from _maps(of)


def _maps(of: _OnVal) -> Iterator[Block]:
    if reason := of.record.tags.get(Tag.NO_GRAD_CAM, ""):
        yield escaped(f"No map shows which places led to these mistakes. {reason}.")
        return
    yield (
        "The same images again, with a map of the places that spoke for the wrong class (Grad-CAM, Selvaraju et "
        "al. 2017). The brighter a place, the more it spoke for that class. Bright places beside the object are a "
        "hint that the background gives the class away."
    )
    yield from of.picture(Artifact.VAL_GRAD_CAM, "The surest mistakes, each with a map of the places that led to it.")


def _label_errors(of: _OnVal) -> Iterator[Block]:
    labels, names = of.predictions.labels, of.names
    errors = label_errors(labels, of.probs)
    likely = errors[errors["is_likely"]]
    if likely.empty:
        yield "No val label is likely wrong by confident learning (Northcutt et al. 2021)."
        return
    yield (
        f"{'1 val label is' if len(likely) == 1 else f'{len(likely)} val labels are'} likely wrong by confident "
        "learning (Northcutt et al. 2021): the network finds another class as probable as it usually does on images of "
        "that class. The lowest probability of the label comes first. Look at an image before you change its label. "
        f"`{Artifact.LABEL_ERRORS}` of the run lists all."
    )
    columns = ["row", "suggested", "prob_label", "prob_suggested"]
    yield markdown_table(
        ("image", "label", "its probability", "suggested", "its probability"),
        [
            (str(of.table["image"][row]), names[labels[row]], f"{own:.1%}", names[suggested], f"{other:.1%}")
            for row, suggested, own, other in likely[columns][:NUM_ROWS].to_records(index=False).tolist()
        ],
    )
    alt = f"Val images whose labels are likely wrong, the likeliest of {len(likely)}."
    yield from of.picture(Artifact.VAL_LABEL_ERRORS, alt)


def _confidence(of: _OnVal) -> Iterator[Block]:
    error, temperature = _calibration_error(of.predictions), of.temperature
    before = f"The calibration error (ECE) on val is {error:.3f}"
    if temperature == 1:
        yield f"{before}. The temperature is 1: no other one fits val significantly better."
    else:
        after = _calibration_error(of.predictions.at(temperature))
        yield f"{before}, and {after:.3f} with the temperature {temperature:.3g}, which was fitted on the same images."
    if assumed := assumed_frequencies(of.record.params):
        yield f"{assumed} Where val has other shares of the classes, part of the error comes from that."
    alt = f"Accuracy against confidence on val. {before}."
    caption = "A point below the diagonal means: less often right than its confidence says."
    yield from of.picture(Artifact.VAL_RELIABILITY, alt, caption, is_drawing=True)


def _calibration_error(of: Predictions) -> float:
    return expected_calibration_error(reliability(of.confidence, of.hits))


def _training(of: _OnVal) -> Iterator[Block]:
    yield "Images of the first training batches as the network sees them, after augmentation, each under its label."
    yield from of.picture(Artifact.TRAINING_SAMPLE, "Augmented training images, each with its label.")


def _code(name: str) -> str:
    """A name inside backticks, where nothing is escaped."""
    return " ".join(name.replace("`", "'").split())
