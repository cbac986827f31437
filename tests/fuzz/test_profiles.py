from pathlib import Path

from tests.fuzz import profiles


def test_the_long_form_has_ten_thousand_inputs():
    tests = "".join(
        path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name
    )
    num_tests = tests.count("@FUZZ\n")
    assert num_tests == profiles.NUM_TESTS == tests.count("@given(")
    assert num_tests * (10_000 // profiles.NUM_TESTS) >= 10_000
