"""Credentials: what is shown of an address, and what is left of a text; then the real command line on dead stores."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from imgcls.errors import InputError, TrainingError
from imgcls.tracking.credentials import guard_logs, redacted, scrubbed
from imgcls.tracking.store import Tracker

SHOWN = {
    "sqlite:////srv/mlflow.db": "sqlite:////srv/mlflow.db",
    "http://127.0.0.1:5000": "http://127.0.0.1:5000",
    "databricks": "databricks",
    "file:/srv/mlruns": "file:/srv/mlruns",
    "http://user:s3cret@host:5000/x": "http://***@host:5000/x",
    "https://dapi0123456789abcdef@host/x": "https://***@host/x",
    "postgresql+psycopg://user:s3cret@127.0.0.1:1/x?sslmode=require": "postgresql+psycopg://***@127.0.0.1:1/x?sslmode=***",
    "postgresql://host/x?user=me&password=s3cret": "postgresql://host/x?user=***&password=***",
    "http://host/x?s3cret": "http://host/x?***",
    "http://host/x#token=s3cret": "http://host/x",
    "http://user:p@ss@host/x": "http://***@host/x",
    # what nobody should write, and clients take all the same
    "postgresql://user:s3/cret@host/x": "postgresql://***",
    "postgresql://user:s3?cret@host/x": "postgresql://***",
    "postgresql://user:s3#cret@host/x": "postgresql://***",
    "http://host/x?password=s3@cret": "http://***",
}


@pytest.mark.parametrize("uri", SHOWN)
def test_an_address_is_shown_without_what_may_be_a_credential(uri):
    assert redacted(uri) == SHOWN[uri]


LETTERS = st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("Cc", "Cs", "Zs"))
PASSWORDS = st.text(LETTERS, min_size=6)
"""Long enough not to be part of an address by chance."""


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    PASSWORDS, st.sampled_from(["postgresql://me:{}@127.0.0.1:1/x", "http://me:{}@host", "mysql://host/x?password={}"])
)
def test_sqlalchemy_s_reading_of_a_password_is_never_shown(password, form):
    """The oracle for what the password of an address is, raw or encoded."""
    for spelt in (password, quote(password, safe="")):
        uri = form.format(spelt)
        try:
            url = make_url(uri)
        except ValueError:  # SQLAlchemy takes it for no address
            continue
        secret = url.query.get("password", "") if "?password" in form else url.password
        if not isinstance(secret, str) or len(secret) < 6 or secret in form:
            continue
        assert secret not in redacted(uri)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            for text in (f"failed: {uri} is away", f"password {secret!s} is wrong", f"me:{spelt}", f"({uri!r})"):
                assert secret not in scrubbed(text)
                assert spelt not in scrubbed(text)


def test_a_text_is_scrubbed_of_every_address_and_every_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass-of-mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws/key+x")
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BUID%3Dme%3BPWD%3Dodbc-s3cret"
    )
    text = (
        "see https://example.org/a?b=c or https://user:other@example.org/a and http://h/x?access_token=tokn "
        "and sent pass-of-mine, aws/key+x, aws%2Fkey%2Bx, odbc-s3cret"
    )
    assert scrubbed(text) == (
        "see https://example.org/a?b=c or https://***@example.org/a and http://h/x?access_token=*** "
        "and sent ***, ***, ***, ***"
    )


def test_words_that_are_no_secrets_stay(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://postgres@localhost/mlflow?ssl=1&sslmode=require")
    text = "1 of 2: postgresql on localhost requires ssl"
    assert scrubbed(text) == text


def test_the_reason_of_a_failed_run_is_scrubbed(project, monkeypatch):
    tracker = project.tracker
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cret-1@127.0.0.1:1")
    for error in (TrainingError("s3cret-1 is away"), ValueError("http://x:y@h/a"), OSError("first\ns3cret-1")):
        with pytest.raises(type(error)), tracker.start_run("exp", kind="train", name="a run"):
            raise error
    reasons = [record.tags["imgcls.reason"] for record in tracker.find({})]
    assert reasons == ["*** is away", "ValueError: http://***@h/a", "OSError: first"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert b"s3cret-1" not in b"".join(path.read_bytes() for path in project.root.glob("mlflow.db*"))


def test_a_store_that_cannot_be_opened_is_named_without_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://user:s3cret@127.0.0.1:1/x")
    with pytest.raises(InputError) as caught:
        Tracker(tmp_path)
    assert "the tracking store nonsense://***@127.0.0.1:1/x cannot be opened" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_log_records_of_any_library_are_scrubbed_for_every_handler(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:s3cret-2@127.0.0.1:1")
    factory = logging.getLogRecordFactory()
    guard_logs()
    try:
        log = logging.getLogger("somebody.else")
        log.warning("%s failed %d times\x1b[2J", "http://user:s3cret-2@127.0.0.1:1/api", 3)
        try:
            raise OSError("no s3cret-2")
        except OSError:
            log.exception("it is %s", "away")
        log.warning("%d", "s3cret-free")  # a mistake in somebody's code stays theirs
    except TypeError:
        pass
    finally:
        logging.setLogRecordFactory(factory)
    assert "http://***@127.0.0.1:1/api failed 3 times\\x1b[2J" in caplog.text
    assert "OSError: no ***" in caplog.text
    assert "s3cret-2" not in caplog.text


ROOT = Path(__file__).parent.parent.parent


OUTPUT_OF_ALL = """
import os, sys
import mlflow.store.db.utils as databases, imgcls.cli, imgcls.tracking.remote_client as servers

databases.MAX_RETRY_COUNT = 2  # MLflow tries for a minute and a half; its first warning is all that is wanted here
servers.FIRST_ANSWER = 3.0
for uri, verb in zip(sys.argv[1::2], sys.argv[2::2]):
    os.environ["MLFLOW_TRACKING_URI"] = uri
    sys.argv[1:] = verb.split()
    try:
        imgcls.cli.main()
    except SystemExit as left:
        print(f"---- exit code {left.code}", file=sys.stderr)
"""


@pytest.mark.slow
def test_no_verb_lets_a_password_out(project):
    verbs = [
        ("http://user:s3cret-3@127.0.0.1:1", "train tiny", "http://127.0.0.1:1 does not answer"),
        ("http://user:s3cret-3@127.0.0.1:1", "sweep tiny", "http://127.0.0.1:1 does not answer"),
        ("http://user:s3cret-3@127.0.0.1:1", "runs", "http://127.0.0.1:1 does not answer"),
        ("http://user:s3cret-3@127.0.0.1:1", f"evaluate --run-id {'0' * 32}", "does not answer"),
        ("http://127.0.0.1:1/?token=s3cret-3", "train tiny", "http://127.0.0.1:1 does not answer"),
        ("postgresql://user:s3cret-3@127.0.0.1:1/x", "train tiny", "postgresql://***@127.0.0.1:1/x"),
        ("nonsense://user:s3cret-3@127.0.0.1:1/x", "train tiny", "nonsense://***@127.0.0.1:1/x"),
    ]
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_LOGGING_LEVEL": "DEBUG", "PYTHONPATH": str(ROOT)}
    words = [word for uri, verb, _ in verbs for word in (uri, verb)]
    done = subprocess.run(  # MLflow reads its level while it is imported
        [sys.executable, "-P", "-c", OUTPUT_OF_ALL, *words],
        cwd=project.root, env=os.environ | settings, capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = done.stderr.split("---- exit code ")
    assert len(said) == len(verbs) + 1
    for (_, _, shown), before, after in zip(verbs, said, said[1:], strict=False):
        assert shown in before and after[0] in "12"
    assert "s3cret-3" not in done.stdout + done.stderr
    for path in project.root.rglob("*"):
        assert not path.is_file() or b"s3cret-3" not in path.read_bytes()
