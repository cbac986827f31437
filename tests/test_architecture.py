"""Rules of the design that decay unless something holds them."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "imgcls"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    (
        "imgcls.errors",
        "imgcls.files",
        "imgcls.text",
        "imgcls.machine_failures",
        "imgcls.allocator",
        "imgcls.machine",
        "imgcls.processes",
    ),
    ("imgcls.file_systems",),
    ("imgcls.terminal", "imgcls.rng", "imgcls.signals"),
    ("imgcls.progress",),
    ("imgcls.statistics",),
    ("imgcls.metrics",),
    ("imgcls.config",),
    ("imgcls.project",),
    ("imgcls.record", "imgcls.run_record", "imgcls.stored_names"),
    ("imgcls.data",),
    ("imgcls.models",),
    ("imgcls.training",),
    ("imgcls.tracking",),
    ("imgcls.reporting",),
    ("imgcls.runs",),
    ("imgcls.evaluation",),
    ("imgcls.inference",),
    ("imgcls.search",),
    ("imgcls.init",),
    ("imgcls.clean",),
    ("imgcls.library",),
    ("imgcls.cli",),
    ("imgcls.__main__",),
]
"""From the top down: a module imports only from its own layer or from those above it."""


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package_of(path):
    return ".".join(path.relative_to(ROOT).parent.parts)


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree, skip=lambda _node: False):
    """Every node below `tree`, without those that `skip` names and what is below them."""
    for child in ast.iter_child_nodes(tree):
        if not skip(child):
            yield child
            yield from nodes(child, skip)


def imports(path, skip=lambda _node: False):
    """Every module that a file imports, wherever in it the import stands."""
    for node in nodes(ast.parse(path.read_text()), skip):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package_of(path))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_of(module):
    for depth, layer in enumerate(LAYERS):
        if any(module == room or module.startswith(room + ".") for room in layer):
            return depth
    return None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path):
    own = layer_of("imgcls.library" if name_of(path) == "imgcls" else name_of(path))
    assert own is not None, "add it to LAYERS"
    for module in imports(path):
        if module.startswith("imgcls.") and (other := layer_of(module)) is not None:
            assert other <= own, f"{name_of(path)} imports {module}, which lies below it"


@pytest.mark.parametrize("folder", ["imgcls", "benchmarks", "torture", "tests"])
def test_no_circle_of_imports(folder):
    """Not within a room either, and not by an import inside a function; type checkers may see one."""
    paths = {name_of(path): path for path in (ROOT / folder).rglob("*.py")}
    imported = {name: set(imports(path, is_for_type_checkers)) & paths.keys() - {name} for name, path in paths.items()}
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("path", [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "torture").glob("*.py")], ids=name_of)
def test_programs_beside_the_package_use_its_public_names(path):
    assert [module for module in imports(path) if module.startswith("imgcls.") and "._" in module] == []


def test_no_file_is_longer_than_400_lines():
    assert not {name_of(path): n for path in MODULES if (n := len(path.read_text().splitlines())) > 400}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("mlflow", ("imgcls.tracking", "imgcls.inference.mlflow_model", "imgcls.inference.served_model")),
        ("optuna", ("imgcls.search",)),
        ("typer", ("imgcls.cli",)),
        ("timm", ("imgcls.models",)),
        ("ray", ("imgcls.search.ray_engine",)),
    ],
)
def test_a_library_has_one_door(library, allowed):
    for path in MODULES:
        if any(module.split(".")[0] == library for module in imports(path)):
            assert name_of(path).startswith(allowed), f"{name_of(path)} imports {library}"


def test_only_the_judge_opens_the_test_split():
    """Only held_out.py has `open(look)`, only splits.py builds a HeldOut, and only judge.py calls it."""
    importers = {name_of(p) for p in MODULES if any("held_out" in module for module in imports(p))}
    assert importers == {"imgcls.data.splits", "imgcls.evaluation.judge"}
    for path in MODULES:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "open"
            and any("test" in ast.unparse(part) for part in [node.func.value])
        ]
        assert not calls or name_of(path) == "imgcls.evaluation.judge", f"{name_of(path)} opens the test split"


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=name_of)
def test_help_imports_no_heavy_library(path):
    """`imgcls --help` answers at once: the command line imports its libraries verb by verb."""
    tree = ast.parse(path.read_text())
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    top |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in top if not name.startswith("imgcls.cli")} <= {
        "__future__",
        "atexit",
        "gc",
        "inspect",
        "json",
        "logging",
        "shlex",
        "sys",
        "time",
        "math",
        "traceback",
        "collections.abc",
        "contextlib",
        "pathlib",
        "typing",
        "typer",
        "typer.core",
        "imgcls.errors",
        "imgcls.inference.export_formats",
        "imgcls.machine_failures",
        "imgcls.processes",
        "imgcls.text",
        "imgcls.terminal",
    }


KEEPERS_OF_THE_SEAL = (
    "data/held_out.py",
    "data/copies.py",
    "data/sketches.py",
    "evaluation/judge.py",
    "evaluation/ledger.py",
    "inference/classifier.py",
    "inference/find_model.py",
    "inference/predictions.py",
    "inference/sealed_images.py",
    "tracking/recorded_looks.py",
)


@pytest.mark.parametrize("name", KEEPERS_OF_THE_SEAL)
def test_no_promise_of_the_seal_rests_on_assert(name):
    """`python -O` removes what does."""
    assert not [node for node in ast.walk(ast.parse((PACKAGE / name).read_text())) if isinstance(node, ast.Assert)]
