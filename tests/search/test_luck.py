"""On labels that mean nothing, a sweep's best score is above chance, and the numbers that are published are not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_luck_is_told_apart_from_skill(tmp_path):
    picture = tmp_path / "luck.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "luck.py"), str(picture), "--trials", "12", "--top", "1", "--seeds", "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["trials"]) == 12 and found["best_trial"] == max(found["trials"])
    # The best of twelve is above chance, and the report says of how many it is the best.
    assert found["best_trial"] > 0.1
    assert "best of 12 trials" in found["report"]
    # What is confirmed falls towards chance, and the interval of what is published contains it.
    assert abs(found["confirmed_mean"] - 0.1) < found["best_trial"] - 0.1
    assert found["optimism"] > 0
    assert found["test_low"] < 0.1 < found["test_high"]
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
