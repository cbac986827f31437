"""What `imgcls init` refuses before it decodes an image: names, places, and a store that takes no run."""

import os
import tempfile
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from imgcls.config.key_types import Name
from imgcls.errors import ConfigError, InputError, ResourceError
from imgcls.init.experiment_file import already_there
from imgcls.tracking.store import Tracker
from imgcls.tracking.store_address import store_file


def named_folder(typed: str) -> Path:
    """The folder that a user typed.

    Raises:
        InputError: it is empty, as a variable of the shell is that is not set; a path would take it for ".".
    """
    if not typed.strip():
        raise InputError(
            f"FOLDER = {typed!r}: is empty; name the folder of images (is a variable of the shell not set?)"
        )
    return Path(typed)


def check_name(name: str, path: Path) -> None:
    """Refuses a name that no experiment can have, or whose file exists at `path`."""
    if name.lower().endswith(".toml"):
        raise ConfigError(
            f"NAME = {name!r}: is the name of the experiment, without .toml; write {name[: -len('.toml')]!r}"
        )
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"NAME = {name!r}: must be up to 100 letters, digits, dots, underscores and hyphens, the first a letter or "
            "digit"
        ) from error
    if os.path.lexists(path):
        raise already_there(path)


def check_place(folder: Path, root: Path) -> None:
    """Refuses a project that lies in the folder of images, into which nothing is written."""
    images = folder.resolve()
    if root.resolve().is_relative_to(images):
        raise InputError(
            f"FOLDER = {folder}: init would write experiments/ and mlruns/ into {root}, which is "
            f"{'the folder' if root.resolve() == images else 'inside the folder'} of images; go to a folder outside "
            f"of it, such as {images.parent}, and name the images {images.name} there"
        )


def check_writable(root: Path, *folders: Path) -> None:
    """Refuses a project where these folders cannot be made, or a store on this machine that cannot be written.

    The test leaves no file.

    Raises:
        ResourceError: naming the file or folder.
    """
    for folder in folders:
        _check_folder(folder, f"has to make {os.path.relpath(folder, root)}/ in the project folder {root}")
    if (store := store_file(root)) is None:
        return
    if store.exists() and not os.access(store, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ResourceError(
            f"{store}: init cannot write to this file, and has to record a run in it; change who may write it "
            f"(chmod u+w {store}), or start in a folder of your own"
        )
    _check_folder(store.parent, f"has to record a run in {store.name}, which needs files beside it")


def _check_folder(folder: Path, purpose: str) -> None:
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ResourceError(
            f"{there}: init cannot write there ({error.strerror or error}), and {purpose}; "
            "change who may write there, or start in a folder of your own"
        ) from error


def store_that_exists(root: Path, name: str) -> Tracker | None:
    """Opens the tracking store, so that what keeps a run out of it is said first; None where the run is to make it.

    Raises:
        InputError: it cannot be opened, or its experiment of this name was deleted.
    """
    store = store_file(root)
    if store is not None and not store.exists():
        return None
    tracker = Tracker(root)
    tracker.check_experiment(name)
    return tracker
