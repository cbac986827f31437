"""What rests on private parts of others: one module a library reaches them, and each is named and tried here.

A test that fails here after an upgrade says which module has to follow the library.
"""

import ast
import inspect
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import torch
import torchvision
from alembic.runtime import migration
from mlflow.exceptions import MlflowException
from mlflow.store import db
from mlflow.store.tracking import sqlalchemy_store
from mlflow.store.tracking.dbmodels.models import SqlDataset
from mlflow.store.tracking.file_store import FileStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient, fluent
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from imgcls import allocator
from imgcls.search.optuna_internals import (
    as_attached,
    attach,
    plan_otherwise,
    planned_values,
    read,
    set_user_attrs,
    storage_of,
    study_id_of,
)
from imgcls.tracking.mlflow_internals import (
    CHATTY_LOGGERS,
    MAX_PARAM_VAL_LENGTH,
    MAX_TAG_VAL_LENGTH,
    OLD_FILE_STORE,
    is_duplicate_row,
    rewrite_places,
)

PACKAGE = Path(__file__).parents[1] / "imgcls"

REACHED = {
    "tracking/mlflow_internals.py": {"_get_store", "_tracking_service", "_tracking_uri"},
    "search/optuna_internals.py": {"_cached_frozen_trial", "_storage", "_study_id", "_trial_id"},
    "training/sync_batch_norm.py": {"_BatchNorm"},
    "inference/resize.py": {"_check"},
}
"""Private names of others, by the module that reaches them."""

PUBLIC = {"_asdict", "_exit", "_fields", "_make"}
"""Names of Python's own that begin like private ones."""


def private(name):
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def names_of_others(path):
    """Private names that a module uses and does not define."""
    own, used, imported = set(), set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                own.add(name)
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.Import(names=names):
                imported |= {part for alias in names for part in alias.name.split(".")}
            case ast.ImportFrom(module=str(module), names=names, level=0) if module.partition(".")[0] != "imgcls":
                imported |= {*module.split("."), *(alias.name for alias in names)}
    return set(filter(private, used - own | imported))


def test_private_names_of_others_are_used_in_the_named_modules_alone():
    found = {str(path.relative_to(PACKAGE)): names_of_others(path) for path in PACKAGE.rglob("*.py")}
    assert {module: names for module, names in found.items() if names} == REACHED


def test_torchs_fused_adamw_leaves_a_step_out_where_found_inf_is_1():
    """training/optimizer.py sets the attribute, as torch.amp.GradScaler does."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], fused=True)
    for lost in (1.0, 0.0):
        optimizer.found_inf = torch.tensor(lost)
        weight.grad = torch.full((3,), float("nan") if lost else 1.0)
        optimizer.step()
        assert torch.equal(weight, torch.ones(3)) == bool(lost)
    assert optimizer.state[weight]["step"] == 1


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="mallopt is a function of glibc, which this system does not use"
)
@pytest.mark.parametrize(("parameter", "value"), allocator.SETTINGS)
def test_glibcs_mallopt_takes_what_it_is_given(parameter, value):
    """allocator.py calls it by the numbers of malloc.h; it answers 1 where it knows them. In a process of its own."""
    call = f"import ctypes; print(ctypes.CDLL(None).mallopt({parameter}, {value}))"
    assert subprocess.run([sys.executable, "-c", call], capture_output=True, check=True).stdout == b"1\n"


def test_torchvision_keeps_labels_under_the_private_name():
    """data/sources/torchvision.py reads `_labels` where there is neither `targets` nor `labels`."""
    assert "self._labels" in inspect.getsource(torchvision.datasets.Flowers102)


def test_torch_documents_its_check_and_raises_where_it_fails():
    """inference/resize.py tells the exporter by it what holds for the sizes of images."""
    torch._check(True)
    with pytest.raises(RuntimeError):
        torch._check(False)
    assert "guard" in torch._check.__doc__ or "Throws" in torch._check.__doc__


def test_optuna_gives_a_trial_by_its_id():
    study = optuna.create_study()
    asked = study.ask()
    (frozen,) = study.get_trials(deepcopy=False)
    assert frozen._trial_id == asked._trial_id
    attach(study, asked.number).set_user_attr("key", "value")
    set_user_attrs(study, asked.number, {"other": 1, "third": 2})
    study.tell(asked.number, state=TrialState.FAIL)
    assert study.trials[0].user_attrs == {"key": "value", "other": 1, "third": 2}
    assert read(study, 0) == as_attached(attach(study, 0)) == study.trials[0]


def test_optuna_has_a_studys_storage_and_its_id_there():
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="study")
    assert storage_of(study) is storage
    assert study_id_of(study) == storage.get_study_id_from_name("study")


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d])
def test_torchs_batch_norms_have_one_class_above_them(norm):
    """training/sync_batch_norm.py tells them from other norms by it."""
    assert issubclass(norm, torch.nn.modules.batchnorm._BatchNorm)


def test_optuna_keeps_the_values_that_were_enqueued():
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.25})
    assert planned_values(study.trials[0]) == {"x": 0.25}
    assert study.ask().number == 0
    plan_otherwise(study, 0, {"x": 0.5})
    assert attach(study, 0).suggest_float("x", 0, 1) == 0.5


def test_optunas_journal_asks_the_lock_that_it_is_given():
    assert "lock_obj" in inspect.signature(JournalFileBackend).parameters
    assert {"acquire", "release"} <= vars(JournalFileOpenLock).keys()


def test_mlflows_tables_hold_the_places_of_artifacts(tmp_path, empty_store):
    """tracking/mlflow_internals.py rewrites them when a project was moved; MLflow's own client reads what it wrote."""
    database = tmp_path / "mlflow.db"
    shutil.copy(empty_store, database)
    client = MlflowClient(f"sqlite:///{database}")
    experiment_id = client.create_experiment("exp", artifact_location="file:///old")
    run_id = client.create_run(experiment_id).info.run_id
    model_id = client.create_logged_model(experiment_id).model_id
    moved = []

    def move(uri, experiment):
        moved.append(experiment)
        return uri.replace("/old", "/new") if uri.startswith("file:///old") else None

    assert rewrite_places(database, move) == 3
    assert sorted(moved) == ["", "", "Default", "exp"]
    client = MlflowClient(f"sqlite:///{database}")
    assert client.get_experiment(experiment_id).artifact_location == "file:///new"
    assert client.get_run(run_id).info.artifact_uri == f"file:///new/{run_id}/artifacts"
    assert client.get_logged_model(model_id).artifact_location.startswith("file:///new")


def test_mlflow_words_a_row_that_is_there_already_as_an_integrity_error(tmp_path, empty_store):
    """tracking/mlflow_internals.py tells by it that another process named the same data set at the same moment."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = SqlAlchemyStore(f"sqlite:///{tmp_path}/mlflow.db", tmp_path.as_uri())
    row = {"experiment_id": 0, "name": "train", "digest": "d", "dataset_source_type": "t", "dataset_source": "s"}
    with pytest.raises(MlflowException) as refused, store.ManagedSessionMaker(read_only=False) as session:
        session.add_all(SqlDataset(dataset_uuid=each, **row) for each in "ab")
    assert is_duplicate_row(refused.value)


def test_mlflows_old_file_store_is_known_by_its_files():
    assert f"[0-9]*/{FileStore.META_DATA_FILE_NAME}" == OLD_FILE_STORE


@pytest.mark.parametrize("logger", [db.utils._logger, sqlalchemy_store._logger, fluent._logger, migration.log])
def test_mlflow_logs_under_the_names_that_are_kept_quiet(logger):
    assert any(f"{logger.name}.".startswith(f"{name}.") for name in CHATTY_LOGGERS)


def test_mlflow_keeps_values_up_to_its_longest_and_cuts_longer_ones(tmp_path, empty_store):
    """tracking/run.py shortens them itself, so that two long ones stay different."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = client.create_run("0").info.run_id
    for longer in (0, 1):
        client.log_param(run_id, f"param{longer}", "x" * (MAX_PARAM_VAL_LENGTH + longer))
        client.set_tag(run_id, f"tag{longer}", "x" * (MAX_TAG_VAL_LENGTH + longer))
    data = client.get_run(run_id).data
    assert [len(data.params[f"param{longer}"]) for longer in (0, 1)] == [MAX_PARAM_VAL_LENGTH] * 2
    assert [len(data.tags[f"tag{longer}"]) for longer in (0, 1)] == [MAX_TAG_VAL_LENGTH] * 2
