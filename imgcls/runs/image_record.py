"""What the record of a run says of its images, and those among them that look alike."""

import json
from collections.abc import Mapping, Sequence

from imgcls.data.image_set import DecodedImages
from imgcls.data.leaks import SHOWN, near_duplicates_csv
from imgcls.data.splits import Dataset
from imgcls.record import UNKNOWN, Artifact, MetricName, Tag
from imgcls.reporting.drawing import pictures_of, save_png
from imgcls.reporting.image_figures import near_duplicates
from imgcls.tracking.recorded_looks import names_of, num_opened_before, write_sketches
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker


class ImageRecord:
    """The image record of a run, or of a sweep: what it says of its images; `tags` are those that describe them."""

    def __init__(self, dataset: Dataset, tracker: Tracker) -> None:
        self._dataset = dataset
        num_opened = num_opened_before(tracker, *dataset.of_train_and_val)
        self.tags = _tags(dataset) | {Tag.NUM_OPENED_BEFORE: str(num_opened)}

    @property
    def metrics(self) -> dict[str, float]:
        """The tag as a metric, so that MLflow's UI can sort by it. Logged after a score, which pages open on."""
        num = self.tags[Tag.NUM_NEAR_LEAKED]
        return {} if num == UNKNOWN else {MetricName.NEAR_LEAKED: float(num)}

    def write(self, run: Run, further: Mapping[str, str]) -> None:
        """Writes the tags and further ones, and which images are sealed."""
        run.set_tags({**self.tags, **further})
        if (test := self._dataset.test) is not None:
            hashes = test.hashes()
            names = sorted(set(names_of(hashes.digests)))
            run.log_text(Artifact.SEALED_IMAGES, "".join(f"{name}\n" for name in names))
            write_sketches(run, Artifact.SEALED_SKETCHES, hashes.sketches)

    def write_near_duplicates(self, run: Run) -> None:
        """Names the images that look alike, and shows those of train and val; test images are never shown."""
        dataset, leaks = self._dataset, self._dataset.leaks
        if leaks.near or leaks.disagreeing:
            run.log_text(Artifact.NEAR_DUPLICATES, near_duplicates_csv(leaks))
        if pairs := leaks.between("train", "val").pairs:
            title = "Near duplicates, train above val"
            _show_pairs(run, Artifact.NEAR_DUPLICATES_FIGURE, title, dataset.train, dataset.val, pairs)
        for alike in leaks.disagreeing:
            if (split := alike.split) != "test":
                images, title = getattr(dataset, split), f"{split} images that look alike, different classes"
                _show_pairs(run, Artifact.DIFFERENT_CLASSES.format(split), title, images, images, alike.pairs)


def _tags(dataset: Dataset) -> dict[str, str]:
    leaks = dataset.leaks
    tags = {
        Tag.NUM_NEAR_LEAKED: UNKNOWN if leaks.num_near_leaked is None else str(leaks.num_near_leaked),
        Tag.DATA_FINGERPRINT: dataset.fingerprint,
        Tag.NUM_TRAIN: str(len(dataset.train)),
        Tag.NUM_VAL: str(len(dataset.val)),
        Tag.NUM_SKIPPED: str(dataset.num_skipped),
        Tag.NUM_IGNORED: str(sum(dataset.ignored.values())),
        Tag.NUM_SEVERAL_FRAMES: str(dataset.num_several_frames),
        Tag.NUM_LEAKED: str(leaks.num_leaked),
        Tag.SPLIT_ORIGINS: json.dumps(dict(dataset.origins)),
        Tag.SQUARES: str(dataset.squares),
    }
    if dataset.val.groups:
        tags[Tag.NUM_VAL_GROUPS] = str(len(set(dataset.val.groups)))
    if leaks.summary:
        tags[Tag.LEAKS] = leaks.summary
    if leaks.num_not_compared:
        tags[Tag.NUM_NOT_COMPARED] = str(leaks.num_not_compared)
    if dataset.test is not None:
        tags[Tag.TEST_FINGERPRINT] = dataset.test.fingerprint()
    return tags


def _show_pairs(
    run: Run, name: str, title: str, above: DecodedImages, below: DecodedImages, pairs: Sequence[tuple[str, str]]
) -> None:
    of_above, of_below = zip(*pairs[:SHOWN], strict=True)
    with pictures_of(run.run_id):
        figure = near_duplicates(
            above.named(of_above).pixels, below.named(of_below).pixels, pairs[:SHOWN], len(pairs), title
        )
        run.log_bytes(name, save_png(figure))
