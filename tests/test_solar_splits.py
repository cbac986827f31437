"""Splits of the solar cells: of a size, drawn once, and one of whole modules."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.solar_splits import NUM_TEST, PHOTOGRAPHED_TWICE, modules, splits


def kinds():
    """Of each cell in order: mono or poly, as the package lists it."""
    folder = Path(find_spec("elpv_dataset").submodule_search_locations[0]) / "data"
    return np.array([line.split()[2] for line in (folder / "labels.csv").read_text().splitlines() if line.strip()])


def test_every_module_is_of_one_kind_and_is_one_stretch_of_cells():
    of_cell, of_kind = modules(), kinds()
    assert len(of_cell) == len(of_kind) == 2624
    assert all(len(set(of_kind[of_cell == module])) == 1 for module in np.unique(of_cell))
    stretches = np.flatnonzero(np.diff(of_cell)) + 1
    assert len(stretches) + 1 == len(np.unique(of_cell)) + 1  # the module that was photographed twice has two
    first, second = (cell - 1 for cell in PHOTOGRAPHED_TWICE)
    assert len(set(of_cell[first : first + 50]) | set(of_cell[second : second + 50])) == 1


def test_splits_are_drawn_once_and_one_parts_no_module():
    drawn, again = splits(), splits()
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    assert [int(is_test.sum()) for name, is_test in drawn.items() if name != "modules"] == [NUM_TEST] * 5
    assert len({is_test.tobytes() for is_test in drawn.values()}) == 6
    of_cell, held_out = modules(), drawn["modules"]
    assert NUM_TEST <= held_out.sum() <= NUM_TEST + 120
    assert not set(of_cell[held_out]) & set(of_cell[~held_out])
