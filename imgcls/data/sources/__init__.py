"""Where images come from: a folder, a package, or torchvision."""

import logging
from pathlib import Path

from imgcls.config.keys import DataConfig
from imgcls.data.sources.folder import Folder
from imgcls.data.sources.packaged import Digits, Elpv, FashionMnist
from imgcls.data.sources.source import ImageSource, Source
from imgcls.data.sources.torchvision import Torchvision
from imgcls.errors import DataError
from imgcls.text import did_you_mean, either

log = logging.getLogger(__name__)

SOURCES: tuple[ImageSource, ...] = (Folder(), Elpv(), Digits(), FashionMnist(), Torchvision())
"""Every source that `data.source` can name."""


def open_source(config: DataConfig, folder: Path) -> Source:
    """Of all sources, opens the one that `data.source` names; its images lie in the folder or are downloaded to it.

    Raises:
        DataError: an unknown source, a missing package or folder, no usable image; lists every offender.
    """
    source = _named(config.source)
    if config.path and not source.uses_path:
        log.warning(
            'data.path = %r is not used: the images of data.source = "%s" lie in a package', config.path, config.source
        )
    return source.open(config, folder)


def native_side(config: DataConfig, folder: Path) -> int | None:
    """Of a source's images, the shorter side in pixels, where all are alike and small; else None.

    Only a data set of torchvision is opened to find it.

    Raises:
        DataError: as `open_source`.
    """
    source = _named(config.source)
    return source.open(config, folder).native_side if isinstance(source, Torchvision) else source.native_side


def _named(name: str) -> ImageSource:
    begin, colon, _ = name.partition(":")
    source = next((source for source in SOURCES if source.name == begin + colon), None)
    if source is None:
        known = [f"{source.name}NAME" if source.name.endswith(":") else source.name for source in SOURCES]
        raise DataError(f"data.source = {name!r} is unknown; use {either(known)}{did_you_mean(name, known)}")
    return source
