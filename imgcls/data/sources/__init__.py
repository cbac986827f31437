"""Where images come from: a folder, a package, or torchvision."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from imgcls.config.keys import DataConfig
from imgcls.data.image_set import SourceImages, Split
from imgcls.data.sources.folder import folder_source
from imgcls.data.sources.packaged import digits, elpv, fashion_mnist
from imgcls.data.sources.source import Source
from imgcls.data.sources.torchvision import torchvision_source
from imgcls.errors import DataError
from imgcls.project import located
from imgcls.text import did_you_mean

log = logging.getLogger(__name__)

__all__ = ["Source", "SourceImages", "Split", "open_source"]


def open_source(config: DataConfig, root: Path) -> Source:
    """Finds the images that `config.source` names.

    Args:
        config: the `[data]` table.
        root: the project's root; a relative `data.path` starts there.

    Raises:
        DataError: an unknown source, a missing package or folder, no usable image; lists every offender.
    """
    path = located(config.path, root, "data.path")
    if config.source == "folder":
        if not config.path:
            raise DataError('data.source = "folder" needs data.path = "…", the folder that holds the images')
        return folder_source(path, follow_symlinks=config.follow_symlinks, has_groups=bool(config.groups))
    if config.source.startswith("torchvision:"):
        return torchvision_source(config.source.removeprefix("torchvision:"), path if config.path else root / "data")
    fixed: dict[str, Callable[[], Source]] = {
        "elpv": elpv,
        "digits": digits,
        "fashion-mnist": lambda: fashion_mnist(path if config.path else root / "data"),
    }
    if config.source not in fixed:
        raise DataError(
            f"data.source = {config.source!r} is unknown; use folder, {', '.join(fixed)} or torchvision:NAME"
            + did_you_mean(config.source, ["folder", *fixed])
        )
    if config.path and config.source in ("elpv", "digits"):
        log.warning(
            'data.path = %r is not used: the images of data.source = "%s" lie in a package', config.path, config.source
        )
    return fixed[config.source]()
