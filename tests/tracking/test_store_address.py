"""Addresses of stores, and projects below folders of any name; MLflow's own client is the oracle."""

import shutil
from pathlib import Path

import pytest

from imgcls.errors import InputError
from imgcls.tracking import store_address
from imgcls.tracking.artifact_places import local_path
from imgcls.tracking.store import Tracker
from imgcls.tracking.store_address import DRIVERS, LONGEST_PATH, database_behind, missing_driver, sqlite_address
from tests.tracking.test_artifact_places import note, seen_by_mlflow

NAMES = [
    "per%20cent", "100%", "%", "que?stion", "ha#sh", "with space", "ümläut", "e\u0301", "quo'te", 'dou"ble', "se;mi",
    "back\\slash", "-lead", "amp&er=x", "plus+", "at@x", "co:lon", "br[ack]et", "new\nline", "tab\t", "star*", "$HOME",
    "~", "pi|pe", "mlruns", "{brace}", "漢字", "sqlite:", "file:", "...", "a,b",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["per%20cent", "que?stion", "100% ha#sh ü '\" ; \\ & = + @ : [x] \n \t * $HOME ~ | {y}", "-x"]
)
def test_a_project_may_lie_in_a_folder_of_any_name(name, tmp_path, empty_store):
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    tracker = Tracker(root)
    run_id = note(tracker)
    assert seen_by_mlflow(root, run_id) == root / "mlruns" / "exp" / run_id / "artifacts" / "folder" / "note.txt"
    assert tracker.read_text(run_id, "folder/note.txt") == "hello"
    assert tracker.unreachable_artifacts() == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing beside it


@pytest.mark.parametrize("name", NAMES)
def test_a_sqlite_address_leads_back_to_its_file(name):
    path = Path("/nowhere", name, "mlflow.db")
    assert database_behind(sqlite_address(path)) == path
    assert local_path(path.as_uri()) == path


@pytest.mark.slow
def test_a_new_store_is_made_where_it_is_named(tmp_path):
    root = tmp_path / "per%20cent?x=1#y"
    root.mkdir()
    Tracker(root)
    assert (root / "mlflow.db").is_file()
    assert list(tmp_path.iterdir()) == [root]


def test_a_name_that_is_not_utf_8_is_refused_at_once(tmp_path):
    root = tmp_path / "sur\udcffrogate"
    root.mkdir()
    with pytest.raises(InputError, match=r"b'sur\\xffrogate' has bytes in its name that are not UTF-8.*rename it"):
        Tracker(root)
    assert not list(root.iterdir())


def test_a_path_longer_than_sqlite_opens_is_refused_at_once(tmp_path):
    root = tmp_path.joinpath(*["x" * 100] * 5)
    root.mkdir(parents=True)
    with pytest.raises(InputError, match=f"SQLite opens none of more than {LONGEST_PATH}; move the project"):
        Tracker(root)


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("sqlite:////tmp/a%20b.db", "/tmp/a b.db"),
        ("sqlite+pysqlite:////tmp/a.db?timeout=5", "/tmp/a.db"),
        ("sqlite:///file:/tmp/a.db?mode=ro&uri=true", None),
        ("postgresql://host/mlflow", None),
        ("http://host:5000", None),
    ],
)
def test_the_file_behind_an_address(uri, database):
    assert database_behind(uri) == (database and Path(database))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("databricks", "it is Databricks"),
        ("databricks://profile", "it is Databricks"),
        ("databricks-uc", "it is Databricks"),
        ("uc:http://host", "it is Databricks"),
        ("./mlruns", "it is a folder or file"),
        ("file:///tmp/mlruns", "it is a folder or file"),
        ("localhost", "it is a folder or file"),
        ("localhost:5000", "it is of no kind"),
        ("s3://user:secret@bucket/x", "s3://***@bucket/x"),
        ("postgres://host/db", "it is of no kind"),
        ("sqlite:mlflow.db", "is not an address"),
        ("sqlite://mlflow.db", "has two slashes where a file has three"),
        ("mysql+pymysql://host/db", "pip install 'pymysql'"),
    ],
)
def test_an_address_that_cannot_be_a_store_is_one_clear_error(uri, why, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError) as refused:
        Tracker(tmp_path)
    assert why in str(refused.value)
    assert "MlflowException" not in str(refused.value) and "secret" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_project_on_a_network_file_system_is_refused_unless_its_store_is_named(tmp_path, empty_store, monkeypatch):
    database = Path(shutil.copy(empty_store, tmp_path / "mlflow.db"))
    run_id = note(Tracker(tmp_path))
    monkeypatch.setattr(store_address, "network_file_system", lambda path: "nfs4" if path == database else "")
    with pytest.raises(InputError, match=rf"{database} lies on a network file system \(nfs4\)") as refused:
        Tracker(tmp_path)
    name, _, uri = str(refused.value).rpartition(" ")[2].partition("=")
    monkeypatch.setenv(name, uri)
    assert Tracker(tmp_path).read_text(run_id, "folder/note.txt") == "hello"


@pytest.mark.parametrize("module", sorted(DRIVERS))
def test_a_missing_driver_names_its_package(module):
    text = missing_driver(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert text == f"its driver is not installed: pip install '{DRIVERS[module]}'"
    assert not missing_driver(ModuleNotFoundError("No module named 'x'", name="x"))
