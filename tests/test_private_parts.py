"""What rests on private parts of others: one module a library reaches them, and each is named and tried here.

A test that fails here after an upgrade says which module has to follow the library.
"""

import ast
import inspect
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from imgcls import allocator

PACKAGE = Path(__file__).parents[1] / "imgcls"

REACHED = {
    "search/journal.py": {"_file"},
    "search/sweep.py": {"_contains", "_storage", "_trial_id"},
}
"""Private names of others, by the module that reaches them."""

PUBLIC = {"_asdict", "_fields", "_exit"}
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
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] != "imgcls":
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(("parameter", "value"), allocator.SETTINGS)
def test_glibcs_mallopt_takes_what_it_is_given(parameter, value):
    """allocator.py calls it by the numbers of malloc.h; it answers 1 where it knows them. In a process of its own."""
    call = f"import ctypes; print(ctypes.CDLL(None).mallopt({parameter}, {value}))"
    assert subprocess.run([sys.executable, "-c", call], capture_output=True, check=True).stdout == b"1\n"


def test_torchvision_keeps_labels_under_the_private_name():
    """data/sources/torchvision.py reads `_labels` where there is neither `targets` nor `labels`."""
    assert "self._labels" in inspect.getsource(torchvision.datasets.Flowers102)
