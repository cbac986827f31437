"""What a benchmark needs is looked for before it begins, so that no hour of results is lost for want of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.forms import Form
from imgcls.config.keys import DataConfig
from imgcls.data.sources import open_source
from imgcls.errors import DataError

REPOSITORY = Path(__file__).resolve().parent.parent

SOURCE_OF_WORK = {"solar_cells": "elpv", "fashion_mnist": "fashion-mnist"}
"""Work -> the `data.source` that its images come from; photographs come with scikit-learn."""

REMEDIES = {
    "elpv": "pip install elpv-dataset",
    "fashion-mnist": "apt-get install dataset-fashion-mnist, or bring torchvision's files into data/FashionMNIST/raw",
}
"""`data.source` -> what provides it."""


def sources_of(form: Form, parts: Iterable[str]) -> list[str]:
    """Each `data.source` that some parts of a benchmark read."""
    parts = set(parts)
    works = form.works if "works" in parts else ()
    sources = [SOURCE_OF_WORK[work] for work in works if work in SOURCE_OF_WORK]
    return sorted({*sources, *(["elpv"] if parts & {"sweep", "threads", "tracker"} else [])})


def require(sources: Iterable[str], root: Path = REPOSITORY) -> None:
    """Opens each source of images, downloads included, and leaves the program with exit code 2 where one is missing."""
    missing = []
    for source in sources:
        try:
            open_source(DataConfig(source=source), root / "data")
        except DataError as error:
            missing.append(f"{error}\n  {REMEDIES.get(source, 'see data.source in docs/keys.md')}")
    if missing:
        sys.stderr.write("\n".join(["nothing was measured, because images are missing:", *missing]) + "\n")
        raise SystemExit(2)
