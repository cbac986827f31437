"""The val images of a run, read again from their source: as pictures, and as the bytes of image files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imgcls.config.keys import DataConfig
from imgcls.data.decode import digest, read_image
from imgcls.data.folds import join_val
from imgcls.data.image_set import SourceImages
from imgcls.data.sources import open_source
from imgcls.errors import DataError, InputError, UnreadableImageError
from imgcls.project import Project

CHANGED = "restore it, or train again"


@dataclass(frozen=True)
class ValImages:
    """The val images of a run in the order of its recorded predictions; nothing is read before it is asked for.

    Attributes:
        table: as the source lists them.
        digests: of each image, in hexadecimal digits, as many as were recorded.
    """

    table: SourceImages
    digests: Sequence[str]

    def __len__(self) -> int:
        return len(self.table)

    def image(self, row: int) -> Image.Image:
        """A val image, upright, of mode `L` or `RGB`.

        Raises:
            DataError: it cannot be read, or its pixels are not those that the run saw.
        """
        try:
            image = self.table.read(row)
        except UnreadableImageError as error:
            raise DataError(f"{self.table.path(row)} can no longer be read: {error}; {CHANGED}") from error
        if not self._is_recorded(image, row):
            raise DataError(f"{self.table.path(row)} has changed since the run; {CHANGED}")
        return image

    def content(self, row: int) -> bytes:
        """A val image as the bytes of an image file: of its own where the source has files, else of a new PNG.

        Raises:
            DataError: as `image`.
        """
        image = self.image(row)
        path = Path(self.table.origin, self.table.keys[row])
        if self.table.origin and path.is_file():
            content = path.read_bytes()
            if self._is_recorded(read_image(content), row):
                return content
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def _is_recorded(self, image: Image.Image, row: int) -> bool:
        return digest(image).hex().startswith(self.digests[row])


def val_images(data: DataConfig, project: Project, names: Sequence[str], digests: Sequence[str]) -> ValImages:
    """The val images of a run by the names that it recorded.

    Args:
        data: the `[data]` table that the run recorded.
        project: where its paths start.
        names: as in the column `image` of `predictions/val.csv`.
        digests: as in its column `digest`.

    Raises:
        InputError: the source does not have all of them any more.
    """
    source = open_source(data, project.images(data))
    if data.folds:
        source = join_val(source)
    table = source.given.get("val") or source.given.get("train") or source.everything
    if table is None or (missing := sorted(set(names) - set(table.keys))):
        gone = missing[0] if table is not None else "every one"
        raise InputError(f"the val images of the run are not in its source any more ({gone} is missing); {CHANGED}")
    return ValImages(table.named(names), tuple(digests))
