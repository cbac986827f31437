"""What every source of images is and brings: names of classes, and a set of images for each split or one to carve."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from imgcls.config.keys import DataConfig
from imgcls.data.image_set import SourceImages, Split


@dataclass(frozen=True)
class Source:
    """What a source brings: either its own splits, or one set of everything to carve them from.

    Attributes:
        class_names: name of each label, from train.
        given: the splits that the source itself defines (train is always among them), or empty.
        everything: all images where the source defines no split.
        channels: 1 where the source is grey, else 3.
        native_side: shorter side of the images in pixels where all are alike and small, else None.
        ignored: kind of files that are not images of a class, such as `.txt` -> how many there are.
        folders: name of each split's folder, such as `Train/`; empty where splits are not folders.
    """

    class_names: tuple[str, ...]
    given: dict[Split, SourceImages]
    everything: SourceImages | None
    channels: Literal[1, 3]
    native_side: int | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    folders: Mapping[Split, str] = field(default_factory=dict)


class ImageSource(ABC):
    """A source of images that `data.source` can name. A new one is a subclass, listed in `imgcls.data.sources`.

    Attributes:
        name: value of `data.source`; where it ends with a colon, the name of a data set follows it.
        uses_path: whether the source reads `data.path`.
        native_side: as in `Source`, where every data set of this kind has the same.
    """

    name: ClassVar[str]
    uses_path: ClassVar[bool] = True
    native_side: ClassVar[int | None] = None

    @abstractmethod
    def open(self, config: DataConfig, path: Path) -> Source:
        """Lists the images.

        Args:
            config: the `[data]` table.
            path: where `data.path` lies; the project's `data/` where it is empty.

        Raises:
            DataError: no such folder, package or data set, or images that cannot be used; lists every offender.
        """
