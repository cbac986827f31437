"""A fresh machine next year installs what was tested: each dependency is bounded from both sides."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
GROUPS = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"]]
GROUPS += PROJECT["project"]["optional-dependencies"].values()
REQUIREMENTS = sorted({requirement for group in GROUPS for requirement in group})


@pytest.mark.parametrize("requirement", list(map(Requirement, REQUIREMENTS)), ids=lambda requirement: requirement.name)
def test_a_dependency_has_a_lowest_version_and_ends_before_the_next_major_one(requirement):
    lowest, end = sorted(requirement.specifier, key=lambda bound: bound.operator, reverse=True)
    assert (lowest.operator, end.operator) == (">=", "<")
    major, *rest = Version(end.version).release
    assert major > Version(lowest.version).major or major == 0
    assert not any(rest) or major == 0, "a version below 1 may break with its second number"
    try:
        assert requirement.specifier.contains(version(requirement.name)), "the one that these tests run with"
    except PackageNotFoundError:
        assert requirement.name in ("lightning", "pillow-heif", "setuptools")
