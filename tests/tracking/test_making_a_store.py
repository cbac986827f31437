"""A new store is made aside without waiting for the disk, and no other database is treated so."""

import sqlite3

import pytest
from sqlalchemy import create_engine, text

from imgcls.tracking import mlflow_internals
from imgcls.tracking.mlflow_internals import create_database, without_waiting_for_the_disk


def synchronous(database):
    with create_engine(f"sqlite:///{database}").connect() as connection:
        return connection.execute(text("PRAGMA synchronous")).scalar()


def test_only_the_database_that_is_being_made_is_not_synced(tmp_path):
    with without_waiting_for_the_disk(tmp_path / "made.db"):
        assert synchronous(tmp_path / "made.db") == 0
        assert synchronous(tmp_path / "other.db") == 2
        assert synchronous(":memory:") == 2
    assert synchronous(tmp_path / "made.db") == 2


@pytest.mark.slow
def test_a_store_is_synced_before_it_is_put_in_place(tmp_path, monkeypatch):
    done = []
    sync, put = mlflow_internals.os.fsync, mlflow_internals.put_in_place
    monkeypatch.setattr(mlflow_internals.os, "fsync", lambda file: (done.append("synced"), sync(file)))
    monkeypatch.setattr(mlflow_internals, "put_in_place", lambda *paths: (done.append("in place"), put(*paths)))
    create_database(tmp_path / "mlflow.db", tmp_path / "mlruns")
    assert done[-2:] == ["synced", "in place"]
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
