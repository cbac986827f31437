"""Real signals, sent by this process to itself."""

import os
import signal
import threading

import pytest

from imgcls.errors import Interrupted
from imgcls.signals import GracefulStop, interruption, stop_requested


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_that_everybody_sees_until_the_block_ends(number):
    before = signal.getsignal(number)
    assert stop_requested() == ""
    with GracefulStop():
        assert stop_requested() == ""
        send(number)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(stop_requested()))
        thread.start()
        thread.join()
        assert [stop_requested(), *seen] == [number.name] * 2
        assert interruption(ValueError()) is None
    assert stop_requested() == ""
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_after_a_second_signal_only_a_granted_stop_ends_the_block_as_itself(error):
    expected = KeyboardInterrupt if error is ValueError else Interrupted

    def insist():
        with GracefulStop():
            send(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGTERM)
            assert isinstance(interruption(ValueError()), KeyboardInterrupt)
            raise error

    with pytest.raises(expected):
        insist()


def test_a_hangup_is_never_the_second_signal():
    with GracefulStop():
        send(signal.SIGTERM)
        send(signal.SIGHUP)
        assert stop_requested() == "SIGTERM"


def test_where_hangups_are_ignored_they_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop():
            send(signal.SIGHUP)
            assert stop_requested() == ""
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_innermost_block_takes_the_request():
    with GracefulStop():
        with GracefulStop():
            send(signal.SIGTERM)
            assert stop_requested() == "SIGTERM"
        assert stop_requested() == ""


def test_entered_on_another_thread_it_hears_nothing_and_hides_nothing():
    def enter():
        with GracefulStop() as stop:
            seen.append((stop_requested(), stop.requested()))

    seen = []
    with GracefulStop():
        send(signal.SIGTERM)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert (seen, stop_requested()) == ([("SIGTERM", "")], "SIGTERM")
