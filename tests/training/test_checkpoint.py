import io
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import Counter, OrderedDict, namedtuple
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from imgcls.errors import InputError, ResourceError
from imgcls.files import leftovers
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
    size = path.stat().st_size
    # And then the name itself, which is in the folder: else a power cut may take it back.
    assert events == [("fsync", size), ("replace", size), ("fsync", tmp_path.stat().st_size)]


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
    with pytest.raises(InputError, match="cannot be read: it is a folder or a device, not a file"):
        load_checkpoint(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt cannot be read: it is a folder or a device, not a file"):
        load_checkpoint(tmp_path / "last.pt")


def test_tensors_that_are_no_checkpoint_are_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "ones.pt")
    with pytest.raises(InputError, match="it holds a Tensor"):
        load_checkpoint(tmp_path / "ones.pt")


# --- checksums: each byte is the one that was written ---------------------------------------------------------------


def member_bytes(path):
    """Name -> range of its bytes in the file, from the headers as PKWARE's APPNOTE has them."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    ranges = {}
    for member in members:
        name_length, extra_length = struct.unpack_from("<HH", whole, member.header_offset + 26)
        start = member.header_offset + 30 + name_length + extra_length
        ranges[member.filename] = range(start, start + member.file_size)
    return ranges


def flipped(whole, place):
    changed = bytearray(whole)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def test_a_flipped_bit_in_a_tensor_or_in_the_pickle_is_seen(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, content())
    whole = path.read_bytes()
    for name, places in member_bytes(path).items():
        for place in {*places[::29], *places[:1], *places[-1:]}:
            path.write_bytes(flipped(whole, place))
            with pytest.raises(InputError, match=rf"last\.pt is not .*the checksum of '{name}' is not that of its"):
                load_checkpoint(path)


def test_torch_itself_does_not_look_at_them(tmp_path):
    """Why we do. Should this fail one day, torch does it too."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"x": torch.zeros(4)})
    path.write_bytes(flipped(path.read_bytes(), member_bytes(path)["archive/data/0"][0]))
    assert torch.load(path, weights_only=True)["x"].count_nonzero() == 1


def test_a_flipped_bit_anywhere_is_seen_or_changes_nothing(tmp_path):
    path = tmp_path / "last.pt"
    saved = {"x": torch.arange(3.0), "epoch": 3}
    save_checkpoint(path, saved)
    whole = path.read_bytes()
    num_seen = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(flipped(whole, place))
        try:
            assert same(load_checkpoint(path), saved)  # the byte was padding, a date, a length said twice
        except InputError:
            num_seen += 1
    assert num_seen > len(whole) / 12


def rewritten(path, change=lambda name, data: (name, data), compression=zipfile.ZIP_STORED, extra=()):
    """The same archive with right checksums, its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in [*(change(*member) for member in members), *extra]:
            archive.writestr(name, data)


def test_an_archive_that_python_wrote_anew_still_loads(tmp_path):
    """So that the refusals below are of what they change, and of nothing else."""
    saved = content()
    save_checkpoint(tmp_path / "last.pt", saved)
    rewritten(tmp_path / "last.pt")
    assert same(load_checkpoint(tmp_path / "last.pt"), saved)


def test_a_decompression_bomb_is_refused_without_being_unpacked(tmp_path):
    path = tmp_path / "bomb.pt"
    save_checkpoint(path, {"x": torch.zeros(2**21)})
    rewritten(path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(InputError, match="claim to be larger than the file"):
        load_checkpoint(path)


def test_a_member_that_claims_to_be_larger_than_the_file_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    save_checkpoint(path, {"x": torch.zeros(7)})
    whole = bytearray(path.read_bytes())
    entry = whole.index(b"PK\x01\x02")
    struct.pack_into("<LL", whole, entry + 20, 2**31, 2**31)  # packed and unpacked size
    path.write_bytes(whole)
    with pytest.raises(InputError, match="claim to be larger than the file"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "name",
    ["../data.pkl", "/data.pkl", "archive/../../x", "archive\\data.pkl", "archive/constants.pkl", "archive/code/a.py"],
)
def test_a_member_with_an_odd_name_is_refused(tmp_path, name):
    path = tmp_path / "odd.pt"
    save_checkpoint(path, {"x": torch.zeros(7)})
    rewritten(path, extra=[(name, b"x")])
    with pytest.raises(InputError, match=r"odd\.pt is not .*does not belong to a checkpoint"):
        load_checkpoint(path)


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    """Two readers may choose a different one, and check a different one than they read."""
    path = tmp_path / "twice.pt"
    save_checkpoint(path, {"x": torch.zeros(7)})
    with pytest.warns(UserWarning, match="Duplicate name"):
        rewritten(path, extra=[("archive/data/0", bytes(28))])
    with pytest.raises(InputError, match="'archive/data/0' does not belong to a checkpoint, or occurs twice"):
        load_checkpoint(path)


def test_a_pickle_before_a_sound_archive_is_refused(tmp_path):
    """zipfile reads the archive at the end, torch would read the pickle at the beginning."""
    path, sprung = tmp_path / "two.pt", tmp_path / "sprung"
    save_checkpoint(path, {"x": torch.zeros(7)})
    path.write_bytes(pickle.dumps(Trap(sprung), protocol=2) + path.read_bytes())
    with pytest.raises(InputError, match="does not begin as one"):
        load_checkpoint(path)
    assert not sprung.exists()


def test_a_tampered_pickle_with_right_checksums_runs_nothing(tmp_path):
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    save_checkpoint(path, {"x": torch.zeros(7)})
    trap = pickle.dumps({"x": Trap(sprung)}, protocol=2)
    rewritten(path, lambda name, data: (name, trap if name.endswith("data.pkl") else data))
    with zipfile.ZipFile(path) as archive:
        assert zlib.crc32(trap) == archive.getinfo("archive/data.pkl").CRC
    with pytest.raises(InputError, match="none of its code, if it has any, was run"):
        load_checkpoint(path)
    assert not sprung.exists()
    pickle.load(io.BytesIO(trap))
    assert sprung.exists()  # the trap is a real one


# --- what a killed writer leaves ------------------------------------------------------------------------------------

HALF_WAY = """
import os, sys, torch
from contextlib import ExitStack
from pathlib import Path
from imgcls.training.checkpoint import save_checkpoint

def stop_here(descriptor):
    print("written", flush=True)
    sys.stdin.read()

os.fsync = stop_here
save_checkpoint(Path(sys.argv[1]), {"x": torch.ones(1000)})
"""


def test_what_a_killed_writer_leaves_is_removed_and_nothing_else_is(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, content(1))
    others = [".last.pt.4194303", ".last.pt.another-machine.4194303", ".hidden", f".last.pt.{os.uname().nodename}.x"]
    for name in others:
        (tmp_path / name).touch()
    command = [sys.executable, "-c", HALF_WAY, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"written\n"
        (aside,) = {p for p in tmp_path.iterdir() if p.name not in {*others, "last.pt"}}
        assert leftovers(tmp_path) == []  # it lives
        writer.send_signal(signal.SIGKILL)
    assert load_checkpoint(path)["epoch"] == 1
    assert leftovers(tmp_path) == [aside]
    assert leftovers(tmp_path / "nowhere") == []


def test_what_the_machine_refuses_says_nothing_against_a_checkpoint(tmp_path):
    """A damaged one is set aside and the run begins again; one that cannot be opened now must not be."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as files:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with pytest.raises(ResourceError, match="too many files open"):
            load_checkpoint(path)
    assert load_checkpoint(path) == {"epoch": 1}
