from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from ltprompt.errors import InputError
from ltprompt.tasks import Rows, Task, label_counts, load_task, read_rows, rows_from
from ltprompt.tasks.splits import Split, draw, sample, split, split_paths, write_rows

XNLI = load_task("xnli")
MOOD = Task(
    name="mood",
    labels=("up", "down"),
    columns=("text",),
    label_column="mood",
    templates={"soft": ("{text}", "{prompt}", "{mask}")},
    words={"en": {"up": "good", "down": "bad"}},
    languages=("en",),
)


def mood(up: int, down: int) -> Rows:
    texts = [(f"text {number}",) for number in range(up + down)]
    return Rows(tuple(texts), (0,) * up + (1,) * down, "mood.tsv")


def drawn(rows: Rows, split: Split, part: str) -> list[tuple[tuple[str, ...], int]]:
    chosen = rows.select(getattr(split, part))
    assert chosen.labels is not None
    return list(zip(chosen.texts, chosen.labels, strict=True))


def test_balanced_disjoint_and_whole() -> None:
    rows = mood(20, 30)
    found = draw(rows, MOOD, shots=5, dev_shots=3, seed=1)
    assert label_counts(rows.select(found.train), MOOD) == {"up": 5, "down": 5}
    assert label_counts(rows.select(found.dev), MOOD) == {"up": 3, "down": 3}
    assert sorted((*found.train, *found.dev, *found.rest)) == list(range(50))
    assert list(found.rest) == sorted(found.rest)
    assert (found.copies, found.contradictory) == (0, 0)


def test_the_seed_alone_decides() -> None:
    rows = mood(20, 20)
    found = draw(rows, MOOD, shots=4, dev_shots=4, seed=1)
    assert draw(rows, MOOD, shots=4, dev_shots=4, seed=1) == found
    assert set(draw(rows, MOOD, shots=4, dev_shots=4, seed=2).train) != set(found.train)
    order = list(range(40))
    random.Random(0).shuffle(order)
    shuffled = rows.select(order)
    again = draw(shuffled, MOOD, shots=4, dev_shots=4, seed=1)
    for part in ("train", "dev"):
        assert drawn(shuffled, again, part) == drawn(rows, found, part)


def test_larger_sets_hold_the_smaller_and_dev_stays() -> None:
    rows = mood(20, 20)
    small, large = (draw(rows, MOOD, shots=shots, dev_shots=4, seed=3) for shots in (2, 16))
    assert set(small.train) < set(large.train)
    assert small.dev == large.dev
    assert large.rest == ()


def test_classes_are_mixed_in_the_files() -> None:
    rows = mood(20, 20)
    labels = [rows.labels[index] for index in draw(rows, MOOD, shots=10, dev_shots=0, seed=0).train]  # type: ignore[index]
    assert labels != sorted(labels)
    assert draw(rows, MOOD, shots=10, dev_shots=0, seed=0).dev == ()


def test_rows_that_look_the_same_never_part() -> None:
    pairs = [("It  sat.", "x"), ("It sat", " x"), ("\uff29t sat!", "x"), ("a", "b"), ("c", "d"), ("c", "e")]
    rows = Rows((*pairs, *pairs), tuple([0, 0, 0, 1, 2, 1] * 2), "a.tsv")
    for seed in range(5):
        found = draw(rows, XNLI, shots=1, dev_shots=0, seed=seed)
        texts = [text for text, _ in drawn(rows, found, "train")]
        assert ("It  sat.", "x") in texts  # the first of its copies
        left = {text for text, _ in drawn(rows, found, "rest")}
        assert left in ({("c", "e")}, {("a", "b")})
        assert found.copies == 12 - 3 - 2


def test_contradictory_rows_are_never_drawn() -> None:
    rows = Rows((("a",), ("b",), ("a.",), ("c",)), (0, 0, 1, 1), "mood.tsv")
    found = draw(rows, MOOD, shots=1, dev_shots=0, seed=0)
    assert (set(found.train), found.rest, found.contradictory) == ({1, 3}, (0, 2), 2)
    with pytest.raises(InputError, match="different examples of 'up' number 1"):
        draw(rows, MOOD, shots=2, dev_shots=0, seed=0)


@pytest.mark.parametrize(
    ("rows", "shots", "dev_shots", "message"),
    [
        (
            mood(12, 40),
            16,
            16,
            r"mood\.tsv: different examples of 'up' number 12, .* take 32 .* `shots` 6 with as many",
        ),
        (mood(40, 12), 10, 4, r"of 'down' number 12, .* take 14 .* the largest possible is `shots` 8 with this"),
        (mood(40, 12), 1, 12, "the largest possible is `shots` 6 with as many for dev"),
        (mood(40, 1), 1, 1, "of 'down' number 1, .* label more of that class"),
        (mood(40, 0), 1, 0, "of 'down' number 0, .* label more of that class"),
    ],
)
def test_too_few_examples_say_what_is_possible(rows: Rows, shots: int, dev_shots: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(rows, MOOD, shots=shots, dev_shots=dev_shots, seed=0)


@pytest.mark.parametrize(("shots", "dev_shots"), [(6, 6), (8, 4), (12, 0)])
def test_what_is_possible_is_drawn(shots: int, dev_shots: int) -> None:
    found = draw(mood(12, 40), MOOD, shots=shots, dev_shots=dev_shots, seed=0)
    assert (len(found.train), len(found.dev)) == (2 * shots, 2 * dev_shots)


def test_rows_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="no labels"):
        draw(rows_from([{"text": "a"}], MOOD, labelled=False), MOOD, shots=1, dev_shots=1, seed=0)


def test_written_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = Rows(((' "a",\tb ',), ("是\u2028x",)), (1, 0), "x")
    path = tmp_path / "new" / "train.1.jsonl"
    write_rows(path, rows, MOOD)
    found = read_rows(path, MOOD)
    assert (found.texts, found.labels) == (rows.texts, rows.labels)
    assert "是" in path.read_text(encoding="utf-8")


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    paths = split_paths(tmp_path, 4, 2)
    assert [path.name for path in paths.values()] == ["train.4.jsonl", "dev.2.jsonl", "rest.jsonl"]
    for path in paths.values():
        path.touch()
        with pytest.raises(InputError, match=rf"{path.name} exists already"):
            split_paths(tmp_path, 4, 2)
        path.unlink()


# --- samples


def test_a_sample_takes_of_each_class_its_share() -> None:
    labels = [0] * 51 + [1] * 40 + [2] * 30 + [3] * 25 + [4] * 22 + [5] * 19 + [6] * 17  # SIB-200's, sorted as there
    drawn = sample(labels, 20, seed=0)
    assert drawn == sorted(set(drawn))
    # 20 n / 204: 5.0, 3.92, 2.94, 2.45, 2.16, 1.86, 1.67; the largest remainders are those of .94, .92, .86 and .67
    assert Counter(labels[index] for index in drawn) == {0: 5, 1: 4, 2: 3, 3: 2, 4: 2, 5: 2, 6: 2}
    assert sample(labels, 20, seed=0) == drawn
    assert sample(labels, 20, seed=1) != drawn


@pytest.mark.parametrize(("count", "shares"), [(3, {0: 1, 1: 1, 2: 1}), (4, {0: 2, 1: 1, 2: 1}), (2, {0: 2})])
def test_no_class_is_left_out_of_a_sample_that_has_room_for_it(count: int, shares: dict[int, int]) -> None:
    labels = [1, *[0] * 98, 2]
    assert Counter(labels[index] for index in sample(labels, count, seed=5)) == shares


def test_a_sample_of_all_is_all() -> None:
    assert sample([0, 1, 1], 3, seed=0) == sample([0, 1, 1], 9, seed=4) == [0, 1, 2]


def test_a_split_is_the_rows_of_a_draw() -> None:
    rows = mood(20, 30)
    drawn_rows = draw(rows, MOOD, shots=5, dev_shots=3, seed=1)
    found = split(rows, MOOD, shots=5, dev_shots=3, seed=1)
    assert found == tuple(rows.select(part) for part in (drawn_rows.train, drawn_rows.dev, drawn_rows.rest))
    train, dev, rest = split(rows, MOOD, shots=5)
    assert (len(train), len(dev), len(rest)) == (10, 10, 30)
    assert repr(drawn_rows) == "Split(10 to train, 6 for dev, 34 left, 0 copies, 0 contradictory)"


def test_a_split_takes_plain_rows() -> None:
    plain = [{"text": f"text {number}", "mood": "up" if number % 2 else "down"} for number in range(8)]
    train, dev, rest = split(plain, MOOD, shots=2, dev_shots=0)
    assert label_counts(train, MOOD) == {"up": 2, "down": 2}
    assert (len(dev), len(rest)) == (0, 4)
    assert split(plain[:6], MOOD, shots=3, dev_shots=0).rest.texts == ()
