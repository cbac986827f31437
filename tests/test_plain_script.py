"""The plain script beside imgcls: as long as docs/plain-script.md says, changed line by line, and run for real."""

import pytest

from benchmarks import plain
from tests.data.make import write_class


def test_the_script_has_the_lines_that_the_page_names():
    lines = [line for line in plain.SCRIPT.read_text().splitlines() if line.strip()]
    below = lines[1 + max(n for n, line in enumerate(lines) if line.startswith(("import ", "from "))) :]
    assert len(below) == 36


@pytest.mark.parametrize("variant", plain.VARIANTS)
def test_every_variant_changes_the_script_where_it_says(variant):
    changed = plain.script_with(plain.VARIANTS[variant])
    compile(changed, variant, "exec")
    assert (changed == plain.SCRIPT.read_text()) == (variant == "script")


def test_a_line_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="stands 0 times in"):
        plain.script_with((("no such line", ""),))


@pytest.mark.slow
def test_the_script_and_imgcls_run_on_the_same_folder(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        for name, start in (("a", 0), ("b", 50)):
            first = 100 * number + start
            write_class(tmp_path / "images" / split / name, range(first, first + 8))
    for scores in (
        plain.run_script(plain.VARIANTS["script, torch's head"], tmp_path / "images", 1),
        plain.run_imgcls(tmp_path / "images", 1),
    ):
        assert all(0 <= score <= 1 for score in scores)
