"""What is said beside every score of a run because its images may flatter it: in sentences, and for programs."""

from collections.abc import Mapping, Sequence

from imgcls.record import Tag
from imgcls.reporting.tables import escaped


def cautions(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Cautions as whole sentences that stand beside every score of a run; none where there is nothing to say.

    Args:
        tags: of the run. A tag that it does not have says nothing: runs of earlier versions lack some.
    """
    sentences = []
    if leaks := tags.get(Tag.LEAKS):
        sentences.append(f"Splits leak: {leaks}.")
    if num := _number(tags, Tag.NUM_NEAR_LEAKED):
        images = "1 val or test image looks" if num == 1 else f"{num} val and test images look"
        sentences.append(f"{images} like an image of another split.")
    if num := _number(tags, Tag.NUM_OPENED_BEFORE):
        images, looks = ("1 train or val image", "looks") if num == 1 else (f"{num} train and val images", "look")
        was = "was" if num == 1 else "were"
        sentences.append(
            f"{images} {was} opened as test images by an earlier evaluation in this store, or {looks} like one."
        )
    return tuple(sentences)


def flat_cautions(tags: Mapping[str, str]) -> dict[str, str | int]:
    """Cautions under the record's names, for programs; what the run does not say is left out."""
    leaks: dict[str, str | int] = {Tag.LEAKS: said} if (said := tags.get(Tag.LEAKS)) else {}
    numbers = {name: _number(tags, name) for name in (Tag.NUM_NEAR_LEAKED, Tag.NUM_OPENED_BEFORE)}
    return leaks | {name: num for name, num in numbers.items() if num is not None}


def caution_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run that hold its cautions; an evaluation takes them over from the run that it judges."""
    return {name: tags[name] for name in (Tag.LEAKS, Tag.NUM_NEAR_LEAKED, Tag.NUM_OPENED_BEFORE) if name in tags}


def _number(tags: Mapping[str, str], name: str) -> int | None:
    value = tags.get(name, "")
    return int(value) if value.isdecimal() else None


def warning(sentences: Sequence[str]) -> tuple[str, ...]:
    """A paragraph of cautions, which stands beside a score; none where there are no sentences."""
    return (f"**Warning:** {escaped(' '.join(sentences))}",) if sentences else ()


def warned(paragraph: str, sentences: Sequence[str]) -> str:
    """Cautions behind a paragraph with a score in it: both together."""
    return " ".join((paragraph, *warning(sentences)))
