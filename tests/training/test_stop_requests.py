"""Signals stop a run only when it checks for them."""

import os
import signal
import threading

import pytest

from domainbed.training.stop_requests import Interrupted, Preempted, StopRequests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_held_back_until_check(number):
    before = signal.getsignal(number)
    with StopRequests(extra_signals=[signal.SIGUSR2]) as requests:
        requests.check()
        signal.raise_signal(number)
        assert requests.received == [number]
        with pytest.raises(Preempted, match=rf"^Stopped by {number.name}\. Run the same command to resume"):
            requests.check()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_at_once():
    with StopRequests() as requests:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted, match="Run the same command to resume"):
            requests.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_tells_at_once_how_to_go_on(capfd):
    with StopRequests(notice="To go on, do it again.") as requests:
        assert capfd.readouterr().err == ""
        signal.raise_signal(signal.SIGTERM)
        assert capfd.readouterr().err == ""
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == "\nTo go on, do it again.\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == ""
        assert requests.received == [signal.SIGTERM, signal.SIGINT]


def test_a_closed_stderr_does_not_keep_ctrl_c_from_stopping_the_run(forked):
    def interrupted():
        os.close(2)
        with StopRequests(notice="To go on, do it again.") as requests:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(Interrupted):
                requests.check()
        print("stopped")

    assert forked(interrupted).stdout == "stopped\n"


def test_other_threads_handle_no_signals():
    handlers = []

    def enter():
        with StopRequests() as requests:
            handlers.append(signal.getsignal(signal.SIGTERM))
            requests.check()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]
