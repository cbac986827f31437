"""Removes credentials from addresses, messages and logs before anybody sees or keeps them."""

import logging
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from imgcls.text import printable

MASK = "***"

ADDRESS = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s'"<>]+""")

SECRET_KEY = re.compile(r"(?i)pass|pwd|token|secret|credential|key|sig|connect")
"""Keys in the query of an address whose values are secrets."""

ODBC_PASSWORD = re.compile(r"(?i)(?:pwd|password)\s*=\s*([^;&]+)")
"""In the connection string that may be one of those values."""

SECRET_VARIABLE = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|SECRET_ACCESS_KEY|ACCOUNT_KEY)$")
"""Variables of the environment whose whole value is a secret, such as MLFLOW_TRACKING_PASSWORD."""

LEAST_SECRET, LEAST_TOKEN = 4, 8
"""Characters from which on a secret is looked for outside of addresses; shorter ones are in too many words."""


def redacted(uri: str) -> str:
    """Masks credentials in an address, so that it may be shown.

    Where an `@` stands behind the host, the password may hold the `/`, `?` or `#` that seems to end it: then nothing
    but the scheme is left.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    beyond = rest[len(authority) :]
    if "@" in beyond:
        return f"{scheme}://{MASK}"
    _, at, host = authority.rpartition("@")
    path, question, query = beyond.partition("#")[0].partition("?")
    shown = re.sub("=[^&]*", f"={MASK}", query) if "=" in query else MASK if query else ""
    return f"{scheme}://{MASK + at if at else ''}{host}{path}{question}{shown}"


def scrubbed(text: str) -> str:
    """Removes credentials from a text, such as a client library's message.

    Removed are the secrets of every address in the environment (`MLFLOW_TRACKING_URI` among them) and of every
    variable like `MLFLOW_TRACKING_PASSWORD`, as they are written there and decoded, and those of every address in the
    text itself.
    """
    for secret in sorted(set(_known_secrets()), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return ADDRESS.sub(_redacted_where_needed, text)


def scrub_error(error: BaseException) -> BaseException:
    """Removes credentials from the texts of an exception, and of those that it was raised from, and gives it back."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.args = tuple(scrubbed(arg) if isinstance(arg, str) else arg for arg in link.args)
        link = link.__cause__ or link.__context__
    return error


@contextmanager
def guarded_logs() -> Iterator[None]:
    """Removes credentials from every log record of this process as long as a block lasts, those of other libraries too.

    Blocks of several threads share one guard.
    """
    with _guard.lock:
        if not _guard.num_blocks:
            _guard.factory_before = logging.getLogRecordFactory()
            guard_logs()
        _guard.num_blocks += 1
    try:
        yield
    finally:
        with _guard.lock:
            _guard.num_blocks -= 1
            if not _guard.num_blocks:
                logging.setLogRecordFactory(_guard.factory_before)


class _Guard:
    """How many blocks hold the guard, and what made log records before it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_blocks = 0
        self.factory_before: Callable[..., logging.LogRecord] = logging.LogRecord


_guard = _Guard()


def guard_logs() -> None:
    """Removes credentials from every log record of this process, those of other libraries too."""
    make = logging.getLogRecordFactory()

    def make_scrubbed(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        with suppress(TypeError, ValueError):  # arguments that do not fit their message; logging reports them
            record.msg, record.args = printable(scrubbed(record.getMessage())), ()
        if record.exc_info and record.exc_info[0]:
            record.exc_text = printable(scrubbed("".join(traceback.format_exception(*record.exc_info)))).rstrip()
        return record

    logging.setLogRecordFactory(make_scrubbed)


def _redacted_where_needed(found: re.Match[str]) -> str:
    address = found[0]
    return redacted(address) if "@" in address or any(_secrets_of(address)) else address


def _known_secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if SECRET_VARIABLE.search(name):
            yield from _spellings(value)
        if "://" in value:
            yield from _secrets_of(value)


def _secrets_of(uri: str) -> Iterator[str]:
    scheme, _, rest = uri.partition("://")
    # A password may hold what should have been encoded, so its end is not certain.
    ends = [rest.find("@"), re.split("[/?#]", rest, maxsplit=1)[0].rfind("@"), rest.rfind("@")]
    for userinfo in {rest[:end] for end in ends if end > 0}:
        user, colon, password = userinfo.partition(":")
        if colon:
            yield from _spellings(password)
            for piece in re.split("[/?#]", password):  # a parser's message quotes what it takes for the port
                yield from _spellings(piece)
        elif scheme.startswith("http") and len(user) >= LEAST_TOKEN:
            yield from _spellings(user)
    for piece in uri.partition("?")[2].split("&"):
        key, _, value = piece.partition("=")
        if SECRET_KEY.search(key):
            yield from _spellings(value)
            yield from _spellings(value.partition("#")[0])
    for password in ODBC_PASSWORD.findall(unquote_plus(uri)):
        yield from _spellings(password)


def _spellings(secret: str) -> Iterator[str]:
    decoded = (unquote(secret), unquote_plus(secret))
    spelt = (secret, *decoded, *(quote(text, safe="") for text in (secret, *decoded)))
    yield from (text for text in spelt if len(text) >= LEAST_SECRET)
