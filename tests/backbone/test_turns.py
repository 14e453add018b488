"""Turns with weights, told by a state that only one thread at a time may set."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ltprompt.backbone.turns import Turns
from ltprompt.errors import InputError

SOON, LONG = 0.05, 60


class Board:
    """A name on a board, which readers want to read and writers rub out."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.name = ""

    def read(self, name: str, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Return whether the name stood there all the time."""

        def write() -> None:
            self.name = name

        with self.turns.shared(lambda: self.name == name, write):
            before = self.name
            meanwhile()
            return before == self.name == name

    def rub_out(self, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Return whether the board stayed empty."""
        with self.turns.alone():
            self.name = ""
            meanwhile()
            return self.name == ""


def test_readers_of_one_name_share_and_others_wait() -> None:
    board, together = Board(), threading.Barrier(3, timeout=LONG)
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda _: board.read("a", together.wait), range(3)))
    let_go, reading = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(board.read, "a", lambda: (reading.set(), let_go.wait(LONG)))
        assert reading.wait(LONG)
        second = pool.submit(board.read, "b")
        time.sleep(SOON)
        assert not second.done()
        let_go.set()
        assert first.result(LONG)
        assert second.result(LONG)


def test_who_asked_first_is_not_overtaken() -> None:
    board, order = Board(), []
    reading, let_go = threading.Event(), threading.Event()
    threads = [threading.Thread(target=board.read, args=("a", lambda: (reading.set(), let_go.wait(LONG))))]
    threads[0].start()
    assert reading.wait(LONG)
    for name in ("b", "a", "b"):  # the second could share with who reads, but for the one before it
        threads.append(threading.Thread(target=board.read, args=(name, lambda name=name: order.append(name))))
        threads[-1].start()
        while len(board.turns._waiting) < len(threads) - 1:
            time.sleep(0.001)
    let_go.set()
    for thread in threads:
        thread.join(LONG)
    assert order == ["b", "a", "b"]


def test_many_threads_that_mix_everything_see_what_they_asked_for() -> None:
    board = Board()

    def one(number: int) -> bool:
        pause = (lambda: time.sleep(0.0005)) if number % 3 else (lambda: None)
        return board.rub_out(pause) if number % 5 == 0 else board.read("abc"[number % 3], pause)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400), timeout=LONG))


def test_a_thread_reads_again_what_it_reads_though_others_wait() -> None:
    board = Board()
    with ThreadPoolExecutor(1) as pool:
        waiting = []

        def again() -> None:
            waiting.append(pool.submit(board.rub_out))
            while not board.turns._waiting:
                time.sleep(0.001)
            assert board.read("a")

        assert board.read("a", again)
        assert waiting[0].result(LONG)


@pytest.mark.parametrize(
    ("outer", "what"),
    [
        ("read", "very thread is using the backbone with what is on it now"),
        ("alone", "in training in this very thread"),
    ],
)
def test_what_would_wait_for_its_own_thread_is_refused_and_leaves_the_turn(outer: str, what: str) -> None:
    board = Board()

    def inner() -> None:
        for call in (lambda: board.read("b"), board.rub_out):
            with pytest.raises(InputError, match=f"{what}.* when that has ended, or load another"):
                call()

    assert board.read("a", inner) if outer == "read" else board.rub_out(inner)
    with ThreadPoolExecutor(1) as pool:  # and no turn is left over
        assert pool.submit(board.rub_out).result(LONG)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_breaks_off_gives_its_turn_back(error: type[BaseException]) -> None:
    board = Board()

    def fail() -> None:
        raise error

    for call in (lambda: board.read("a", fail), lambda: board.rub_out(fail)):
        with pytest.raises(error):
            call()
    with pytest.raises(error), board.turns.shared(lambda: False, fail):
        pass
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(board.rub_out).result(LONG)


def test_a_copy_has_turns_of_its_own() -> None:
    board = Board()
    with board.turns.alone(), copy.deepcopy(board).turns.alone():
        pass
