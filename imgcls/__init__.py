"""imgcls: a workbench for image classification with the experiment tracker at its centre.

The names in `__all__` are the public interface of the library. Everything else is private and may change in any
release. They are loaded when they are first used, so `import imgcls` is quick:

    import imgcls

    run = imgcls.train("digits", train={"lr": 3e-3})
    print(imgcls.evaluate(run))
    predictions = imgcls.load_model(run).predict(["image.png"])
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgcls import errors
    from imgcls.inference.classifier import Classifier
    from imgcls.library.experiment import Experiment, load_experiment
    from imgcls.library.results import CompareResult, EvaluateResult, SweepResult, TrainResult
    from imgcls.library.verbs import compare, evaluate, list_runs, load_model, sweep, train

    __version__: str

__all__ = [
    "Classifier", "CompareResult", "EvaluateResult", "Experiment", "SweepResult", "TrainResult", "__version__",
    "compare", "errors", "evaluate", "list_runs", "load_experiment", "load_model", "sweep", "train",
]  # fmt: skip

# Before anything imports MLflow: what a laboratory trains is nobody else's business unless it says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_HOMES = {
    "inference.classifier": ("Classifier",),
    "library.experiment": ("Experiment", "load_experiment"),
    "library.results": ("CompareResult", "EvaluateResult", "SweepResult", "TrainResult"),
    "library.verbs": ("compare", "evaluate", "list_runs", "load_model", "sweep", "train"),
}
"""Module of the package -> the public names that it holds."""


if not TYPE_CHECKING:  # or no type checker would find a misspelt name

    def __getattr__(name: str) -> object:
        """A public name, when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module 'imgcls' has no attribute {name!r}; public are: {', '.join(sorted(__all__))}")
        value = globals()[name] = _load(name)
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def _load(name: str) -> object:
    import random
    import warnings
    from importlib import import_module

    if name == "__version__":
        return _version()
    home = next((home for home, names in _HOMES.items() if name in names), "")
    state = random.getstate()
    with warnings.catch_warnings():  # the libraries below add filters of their own, and draw random numbers
        module = import_module(f".{home or name}", __name__)
    random.setstate(state)
    return getattr(module, name) if home else module


def _version() -> str:
    """The installed version; `unknown` where imgcls is used from a folder without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("imgcls")
    except PackageNotFoundError:
        return "unknown"
