"""The checkpoint loader: what was saved, or an InputError. And weights from elsewhere, which have no checksums."""

import io
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imgcls.errors import InputError
from imgcls.models.pretrained_weights import read_file
from imgcls.text import printable
from imgcls.training.checkpoint import load_checkpoint
from tests.fuzz.profiles import EDIT, FUZZ, damaged, edited, no_hang_no_warning


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


torch.manual_seed(0)
MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()
CONTENTS = [
    {"config": 'name = "é"\n', "epoch": 3, "model": MODEL, "metrics": {"val/loss": 0.5}, "class_names": ["a", "b"]},
    {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.999), "half": torch.zeros(3, dtype=torch.bfloat16)},
    {"x": None, "y": [True, 2**70, -0.0], "empty": torch.zeros(0), "transposed": torch.arange(6.0).reshape(2, 3).T},
]
REAL = [saved(content) for content in CONTENTS]
LEGACY = [saved(content, _use_new_zipfile_serialization=False) for content in (CONTENTS[0], MODEL)]


def same(left, right):
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints") / "last.pt"


def check(path, content, load=load_checkpoint):
    """A dict, or None where the error names the file."""
    path.write_bytes(content)
    with no_hang_no_warning():
        try:
            loaded = load(path)
        except InputError as error:
            loaded = str(error)
    if isinstance(loaded, str):
        assert str(path) in loaded
        printable(loaded).encode()
        return None
    assert isinstance(loaded, dict)
    return loaded


@FUZZ
@given(
    damaged(REAL)
    | st.builds(bytes.__add__, st.sampled_from([b"PK\x03\x04", b"\x80\x02", b""]), st.binary(max_size=300))
)
def test_damaged_checkpoints(path, content):
    """The damage may miss all that counts; then what is loaded is, to the bit, what was saved."""
    loaded = check(path, content)
    assert loaded is None or any(same(loaded, original) for original in CONTENTS)


def members(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


@FUZZ
@given(
    st.sampled_from([members(real) for real in REAL]),
    st.lists(st.tuples(st.sampled_from(["pickle", "pickle", "any"]), st.integers(0, 20), EDIT), min_size=1, max_size=3),
)
def test_tampered_checkpoints_with_right_checksums(path, archive, edits):
    """What is behind the checksums: torch's own reader, given pickles that nobody wrote."""
    parts = dict(archive)
    for what, place, edit in edits:
        name = "archive/data.pkl" if what == "pickle" else list(parts)[place % len(parts)]
        parts[name] = edited(parts[name], [edit])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as rewritten:
        for name, content in parts.items():
            rewritten.writestr(name, content)
    check(path, file.getvalue())


@FUZZ
@given(damaged([*REAL, *LEGACY]))
def test_damaged_weights(path, content):
    check(path, content, load=read_file)
