"""The side at which train is decoded: as large as its crops need, and no larger than the images are themselves."""

import math

from imgcls.config.key_types import Fit
from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data.cache_folder import remember
from imgcls.data.decode_workers import in_threads, pieces_of
from imgcls.data.image_formats import FORMATS
from imgcls.data.image_set import SourceImages, hash_of
from imgcls.data.sources.source import Source
from imgcls.errors import UnreadableImageError

ROWS_OF_A_PIECE = 1000
"""Most headers that a thread reads at a time."""


def train_side(source: Source, config: DataConfig, augment: AugmentConfig, squares: int) -> tuple[int, int]:
    """The side at which train is decoded, and the lowest format that gives it, of those up to `squares`."""
    uncapped = decode_side(config.image_size, augment, source.native_side)
    if squares < 3 or uncapped == config.image_size:
        return uncapped, min(squares, 2)
    own = own_side(source.everything or source.given["train"], config.fit)
    capped = uncapped if own is None else decode_side(config.image_size, augment, own)
    return capped, 3 if capped < uncapped else 2


def decode_side(image_size: int, augment: AugmentConfig, native_side: int | None) -> int:
    """The train split's side when decoded: large enough that the smallest crop is not scaled up.

    The smallest crop covers a share `low` of the area, so its side is sqrt(low) of the image's. Images are not kept
    larger than they are (`native_side`, in pixels, where it is known), nor smaller than the model sees.
    """
    wanted = math.ceil(image_size / math.sqrt(augment.random_resized_crop[0]))
    return wanted if native_side is None else max(image_size, min(wanted, native_side))


def own_side(table: SourceImages, fit: Fit) -> int | None:
    """The images' own side, in pixels: that of the smallest square in which no image of a table loses a pixel.

    It is the shorter side of the image whose shorter side is the largest, since `crop` keeps no more; with `pad` and
    `squash` it is the longest side. Unreadable images do not count. Headers are read once for a table: the cache folder
    remembers the result.

    Returns:
        None where a source does not tell the sizes of its images.
    """
    if (header := table.header) is None:
        return None

    def largest(rows: range) -> int:
        return max(_side(row) for row in rows)

    def _side(row: int) -> int:
        try:
            size = header(row)
        except UnreadableImageError:
            return 0
        return min(size) if fit == "crop" else max(size)

    def measured() -> str:
        return str(max(in_threads(largest, pieces_of(len(table), ROWS_OF_A_PIECE)), default=0))

    return int(remember(f"side-{hash_of(' '.join(FORMATS), table.stamp, fit)[:32]}", measured))
