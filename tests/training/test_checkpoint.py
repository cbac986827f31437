import os
import pickle
import random
import zipfile
from collections import Counter, OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from imgcls.errors import InputError
from imgcls.training.checkpoint import load_checkpoint, save_checkpoint


def content(value=1):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(memory_format=torch.channels_last)
    return {
        "config": 'name = "é漢😀"\n',
        "epoch": value,
        "loss": 0.1 + 0.2,
        "done": False,
        "average": None,
        "history": [{"epoch": 1, "betas": (0.9, 0.999)}],
        "state": {0: {"step": torch.tensor(3.0)}},
        "model": model.state_dict(),
        "half": torch.tensor([1.5, -0.0, float("inf")], dtype=torch.bfloat16),
    }


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.dtype == right.dtype and left.stride() == right.stride()
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and type(left) is type(right)


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path):
    saved = content()
    save_checkpoint(tmp_path / "new" / "folder" / "last.pt", saved)
    assert same(saved, load_checkpoint(tmp_path / "new" / "folder" / "last.pt"))


def test_a_new_checkpoint_takes_the_place_of_the_old_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, content(1))
    with path.open("rb") as reader:  # somebody who reads the old one goes on reading it
        save_checkpoint(path, content(2))
        assert torch.load(reader, weights_only=True)["epoch"] == 1
    assert load_checkpoint(path)["epoch"] == 2
    assert list(tmp_path.iterdir()) == [path]


class DiskFullError(OSError):
    """What a full disk gives."""


@pytest.mark.parametrize("function", ["torch.save", "os.fsync", "pathlib.Path.replace"])
def test_the_old_checkpoint_stays_where_writing_the_new_one_fails(tmp_path, monkeypatch, function):
    path = tmp_path / "last.pt"
    save_checkpoint(path, content(1))
    real_save = torch.save

    def half_written(saved, file):
        real_save(saved, file)
        file.truncate(100)
        raise DiskFullError

    def fail(*_):
        raise DiskFullError

    monkeypatch.setattr(function, half_written if function == "torch.save" else fail)
    with pytest.raises(DiskFullError):
        save_checkpoint(path, content(2))
    monkeypatch.undo()
    assert load_checkpoint(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_the_name_is_theirs(tmp_path, monkeypatch):
    path, events = tmp_path / "last.pt", []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_size))
        real_fsync(descriptor)

    def replace(source, target):
        events.append(("replace", source.stat().st_size))
        return real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    save_checkpoint(path, content())
    assert events == [("fsync", path.stat().st_size), ("replace", path.stat().st_size)]


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float64(1), r"checkpoint\['x'\] is a float64"),
        (np.ones(2), r"checkpoint\['x'\] is a ndarray"),
        (Path("x"), r"checkpoint\['x'\] is a (Posix|Windows)Path"),
        (nn.Linear(1, 1), r"checkpoint\['x'\] is a Linear"),
        (Pair(1, 2), r"checkpoint\['x'\] is a Pair"),
        (Counter(), r"checkpoint\['x'\] is a Counter"),
        (OrderedDict(a=[1, (2, {3})]), r"checkpoint\['x'\]\['a'\]\[1\]\[1\] is a set"),
        ({np.int64(1): 1}, r"key .*1.* of checkpoint\['x'\] is a int64"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, value, message):
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "last.pt", {"x": value})
    assert list(tmp_path.iterdir()) == []


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("how", ["torch", "legacy torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, how):
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    harmful = {"model": Trap(sprung)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(harmful, protocol=2))
    else:
        torch.save(harmful, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(InputError, match="none of its code, if it has any, was run"):
        load_checkpoint(path)
    assert not sprung.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert sprung.exists()  # the trap is a real one


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt is not a checkpoint"):
        load_checkpoint(tmp_path / "model.pt")


def test_the_message_does_not_invite_to_load_it_unsafely(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "model.pt")
    assert "weights_only" not in str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, content())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_checkpoint(path)


def zip_of_something_else(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("name = 'digits'\n"),
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
        lambda path: path.write_bytes(b"\x80\x02}q\x00."[:-1]),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(100)),
        zip_of_something_else,
    ],
    ids=["empty", "text", "image", "half a pickle", "npy", "zip"],
)
def test_a_foreign_file_is_refused(tmp_path, write):
    path = tmp_path / "foreign.pt"
    write(path)
    with pytest.raises(InputError, match=r"foreign\.pt is not a checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_are_refused_and_nothing_else_is_raised(tmp_path, seed):
    print("seed", seed)
    draws = random.Random(seed)
    path = tmp_path / "noise.pt"
    for _ in range(100):
        path.write_bytes(draws.choice([b"", b"\x80\x02", b"PK\x03\x04"]) + draws.randbytes(draws.randrange(300)))
        with pytest.raises(InputError):
            load_checkpoint(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no checkpoint .*last\.pt"):
        load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


def test_tensors_that_are_no_checkpoint_are_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "ones.pt")
    with pytest.raises(InputError, match="it holds a Tensor"):
        load_checkpoint(tmp_path / "ones.pt")
