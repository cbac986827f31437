"""Errors of a tracking server: try again, use other credentials, or give up."""

from collections.abc import Iterator

import requests
from mlflow.exceptions import MlflowException

from imgcls.tracking.credentials import scrubbed


class Unsent(Exception):
    """Server error: an entry was not taken now, and is sent again. The text goes on from the server's name."""


class Away(Unsent):
    """Server error: the server does not answer."""


class Denied(Unsent):
    """Server error: other credentials are wanted."""


class Refused(Exception):
    """Server error: an entry will never be taken."""


def classify(error: Exception) -> Unsent | Refused | None:
    """Server error behind an exception of MLflow's client; None if it says nothing about the server.

    Returns:
        Away where nobody answers, Denied where other credentials are wanted, Unsent for trouble that may pass
        (5xx, 408, 429, and a 404 of a proxy), Refused for every other answer of 4xx.
    """
    if isinstance(error, Unsent | Refused):
        return error
    for link in _chain(error):
        if isinstance(link, requests.HTTPError) and link.response is not None:
            return _classify_status(link.response.status_code, '"error_code"' in link.response.text, error)
        if isinstance(link, requests.ReadTimeout):  # a large file, perhaps: what else there is can be sent
            return Unsent("does not answer in time")
        if isinstance(link, requests.Timeout):
            return Away("does not answer in time")
        if isinstance(link, requests.ConnectionError | ConnectionError | TimeoutError):
            return Away(f"does not answer ({reason(error)})")
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return _classify_status(status, error.error_code != "ENDPOINT_NOT_FOUND", error)
    return None


def reason(error: BaseException) -> str:
    """Server error in words: the innermost reason that the system gives, else the message's first line."""
    system = [link.strerror for link in _chain(error) if isinstance(link, OSError) and link.strerror]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return scrubbed(system[-1] if system else lines[0])[:300]


def _classify_status(status: int, by_mlflow: bool, error: Exception) -> Unsent | Refused:
    if status in (401, 403):
        return Denied(f"wants other credentials (HTTP {status})")
    if status >= 500 or status in (408, 429) or (status == 404 and not by_mlflow):
        return Unsent(f"cannot serve us now (HTTP {status}: {reason(error)})")
    return Refused(reason(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
