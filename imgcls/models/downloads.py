"""Downloads of published weights: files that earlier ones left on this machine, and whether the hub answers."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

SECONDS_TO_ANSWER = 5.0
"""Seconds to wait for an answer of the hub; huggingface_hub itself would try for three quarters of a minute."""


def downloaded(config: Any) -> Path | None:
    """The file that an earlier download of weights of timm, a `PretrainedCfg`, left here; None if there is none."""
    if not config.hf_hub_id:
        return downloaded_from(config.url)
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = config.hf_hub_id.partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    found = [try_to_load_from_cache(repository, name, revision=revision or None) for name in names]
    return next((Path(path) for path in found if isinstance(path, str)), None)


def downloaded_from(address: str | None) -> Path | None:
    """The file that torch downloaded from an address earlier; None if there is none."""
    import torch

    if not address:
        return None
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    return path if path.is_file() else None


@contextmanager
def asked_where_it_answers() -> Iterator[None]:
    """Turns downloads off for a `with` block if the hub does not answer: only what is on this machine is used."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(why_unreachable())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def why_not_had(error: Exception) -> str:
    """Why a download of weights failed: the hub does not answer, or else the text of the error."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    is_for_want_of_the_hub = isinstance(error, LocalEntryNotFoundError)
    return (is_for_want_of_the_hub and why_unreachable()) or str(error)


@lru_cache(maxsize=1)
def why_unreachable() -> str:
    """Why the hub cannot be reached for downloads; empty if it answers. It is asked once in a process."""
    from huggingface_hub import constants

    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:  # an answer
        return ""
    except OSError as error:
        return f"{constants.ENDPOINT} does not answer: {getattr(error, 'reason', error)}"
    return ""
