"""How many inputs, how they are damaged, and what may come of one.

    make fuzz                                  # 10,000 inputs and more, other ones each time
    IMGCLS_FUZZ=long pytest tests/fuzz         # the same

Without it: some hundred inputs, the same ones each time. A failure prints its input; hypothesis keeps it in
`.hypothesis/`, and begins with it the next time.
"""

import os
import signal
import warnings
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NUM_TESTS = 10
"""Functions that are given inputs; `test_the_long_form_has_ten_thousand_inputs` counts them."""

settings.register_profile("fuzz-short", derandomize=True, max_examples=50, database=None)
settings.register_profile("fuzz-long", max_examples=10_000 // NUM_TESTS, print_blob=True)

IS_LONG = os.environ.get("IMGCLS_FUZZ") == "long"
FUZZ = settings(
    settings.get_profile("fuzz-long" if IS_LONG else "fuzz-short"),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""Decorator of every test here; loading a profile would change the tests of other folders."""

LONGEST = 60
"""Seconds after which an input is a hang: a thousand times what the slowest needs."""


@contextmanager
def no_hang_no_warning():
    """Fails where the block warns, or does not end; Pillow's own warnings are silenced by `imgcls.data.decode`."""

    def give_up(*_):
        raise AssertionError(f"this input takes longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", module="PIL")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert [str(warning.message) for warning in caught] == []


INTERESTING = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    bytes(4),
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff\xff",
]
"""What lengths and counts are at their limits, in either order of bytes."""

EDIT = st.tuples(st.integers(0, 2**20), st.sampled_from(INTERESTING) | st.binary(min_size=1, max_size=4))


def edited(original, edits):
    """Some bytes replaced, each edit at its place modulo the length."""
    changed = bytearray(original)
    for place, new in edits:
        start = place % max(1, len(changed))
        changed[start : start + len(new)] = new
    return bytes(changed)


def damaged(originals):
    """Real files with bytes replaced, cut off, cut out or put in."""

    def damage(original, edits, cut, start, length, foreign):
        changed = edited(original, edits)
        if cut is not None:
            changed = changed[: cut % (len(changed) + 1)]
        start %= len(changed) + 1
        return changed[:start] + foreign + changed[start + length :]

    return st.builds(
        damage,
        st.sampled_from(originals),
        st.lists(EDIT, max_size=6),
        st.none() | st.integers(0, 2**20),
        st.integers(0, 2**20),
        st.sampled_from([0, 0, 0, 1, 4, 100]),
        st.sampled_from([b"", b""]) | st.binary(max_size=8),
    )
