import math

import pandas as pd

from imgcls.search.leaderboard import with_intervals
from imgcls.statistics.intervals import wilson


def test_a_leaderboard_for_people_has_intervals_and_as_many_digits_of_the_loss():
    board = pd.DataFrame({"trial": [3, 1], "val/accuracy": [0.88123, math.nan], "val/loss": [0.34567, 0.9]})
    shown, interval = with_intervals(board, 300), wilson(round(0.88123 * 300), 300)
    assert shown["val/accuracy"].tolist() == [f"0.88 ({interval.low:.2f} to {interval.high:.2f})", "–"]
    assert shown["val/loss"].tolist() == ["0.35", "0.9"]
