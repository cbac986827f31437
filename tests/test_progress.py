"""Progress where nobody watches a bar: a line now and then."""

import logging

from imgcls import progress
from imgcls.progress import Progress


def test_elsewhere_than_on_a_terminal_it_is_a_line_now_and_then(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(1000, "decoding") as bar:
        for _ in range(10):
            now[0] += 12
            bar.update(100)
    assert caplog.messages == [
        "decoding: 300 of 1000 images, 1 min 24 s left",
        "decoding: 600 of 1000 images, 48 s left",
        "decoding: 900 of 1000 images, 12 s left",
    ]


def test_what_is_soon_over_says_nothing(caplog):
    with caplog.at_level(logging.INFO), Progress(2, "decoding") as bar:
        bar.update(2)
    assert caplog.messages == []
