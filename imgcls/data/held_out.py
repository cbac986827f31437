"""The sealed test split. This module alone reads its images, and only `evaluation/judge.py` may call `open`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from imgcls.config.key_types import Fit
from imgcls.data import decode_cache
from imgcls.data.image_set import DecodedImages, HashedImages, SourceImages, fingerprint
from imgcls.errors import DataError, SealedError, UnreadableImagesError


@dataclass(frozen=True)
class Look:
    """The held-out test split's key: an opening of it that the tracker has written down.

    Attributes:
        run_id: the evaluation run under which the look was written down.
        number: ordinal of this opening of the test split, from 1.
        is_recorded: asks the tracker whether it holds this look.
    """

    run_id: str
    number: int
    is_recorded: Callable[[], bool]


class HeldOut:
    """Held-out test images behind two doors: `hashes`, which is not a look, and `open`, which is one.

    Args:
        table: the test images, undecoded.
        class_names: name of each label.
        decode_side: of the squares that are made from the source, in pixels.
        image_size: side that the model sees, in pixels; it differs only where format 1 of `imgcls.squares` is repeated.
        skip_unreadable: leave unreadable images out instead of refusing them.
    """

    def __init__(
        self,
        table: SourceImages,
        class_names: tuple[str, ...],
        *,
        decode_side: int,
        image_size: int,
        channels: int,
        fit: Fit = "crop",
        skip_unreadable: bool = False,
    ) -> None:
        self._table = table
        self._class_names = class_names
        self._decode_side = decode_side
        self._image_size = image_size
        self._channels = channels
        self._fit: Fit = fit
        self._skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.hashes())

    def hashes(self) -> HashedImages:
        """Names, classes and hashes of the readable test images; no picture comes out of them.

        Raises:
            UnreadableImagesError: naming every unreadable test image.
        """
        images = self._readable(self._hashed)
        return HashedImages(images.keys, images.labels, images.hashes, groups=images.groups)

    def unreadable(self) -> list[str]:
        """`path: reason` of each test image that cannot be decoded."""
        return list(self._hashed.unreadable.values())

    def fingerprint(self) -> str:
        """Content hash of the test split: sixteen hex digits over (class, source pixels) of its images."""
        return fingerprint({"test": self.hashes()}, self._class_names)

    def open(self, look: Look) -> DecodedImages:
        """Decodes the test images. This is a look, and the tracker is asked for its record first.

        Nothing of them stays in the cache, where the next reader would need no look.

        Raises:
            SealedError: the tracker does not hold the look.
            DataError: where they are no longer those that `hashes` and `fingerprint` saw.
        """
        if not look.run_id or look.number < 1 or not look.is_recorded():
            raise SealedError(
                f"look {look.number} of run {look.run_id!r} is not in the tracker, so the test split stays sealed; "
                "write the look down first"
            )
        decoded = decode_cache.decode_and_forget(
            self._table, self._decode_side, self._channels, fit=self._fit, title="decoding test images"
        )
        images = self._readable(decoded)
        if not np.array_equal(images.digests, self.hashes().digests):
            raise DataError("test images changed while the program ran; start it again")
        return decode_cache.resized(images.in_content_order(), self._image_size)

    @cached_property
    def _hashed(self) -> decode_cache.Decoded:
        return decode_cache.decode(self._table, 0, self._channels, title="hashing test images")

    def _readable(self, decoded: decode_cache.Decoded) -> DecodedImages:
        if decoded.unreadable and not self._skip_unreadable:
            raise UnreadableImagesError(list(decoded.unreadable.values()))
        return decoded.images
