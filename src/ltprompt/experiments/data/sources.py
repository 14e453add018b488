"""The rows of every run of an experiment: read once, drawn once, and every problem found before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath

from ltprompt.errors import InputError, choices
from ltprompt.experiments.data.fewshot import language_folder, read_fewshot
from ltprompt.experiments.data.hub import UnreachableError, read_hub
from ltprompt.experiments.data.official import read_official
from ltprompt.experiments.data.settings import HOLE, DataSettings, TestSource, TrainSource, fill
from ltprompt.experiments.data.usable import ONLY, Languages, Usable
from ltprompt.experiments.records import Setting
from ltprompt.files.artifacts import canonical_json
from ltprompt.tasks import Rows, Task, read_rows
from ltprompt.tasks.splits import draw, sample

Place = tuple[str | None, ...]  # what a table is known by: its kind and path, or all that names a hub's table

# Rows of a table that is kept only until the next is read: a table like MultiNLI takes 300 MB, fifteen of them 5 GB.
LARGE = 100_000


@dataclass(frozen=True)
class TestTable:
    """Labelled rows to test on. note: what a reader must know of them; empty where there is nothing."""

    __test__ = False  # no test, whatever its name

    rows: Rows
    note: str


@dataclass(frozen=True)
class _Drawn:
    """The rows of one language and number of shots. rest: None where there is another source of test rows."""

    train: Rows
    dev: Rows | None
    rest: Usable | None


class Sources:
    """The rows that a grid's ``data:`` section describes. A draw is made once; a table is read once, unless large.

    base: folder that relative paths are seen from, the grid file's. Rows are named as the settings write their paths,
    so that a record does not depend on where the project lies.
    """

    def __init__(self, settings: DataSettings, task: Task, base: Path = Path()) -> None:
        self.settings = settings
        self.task = task
        self.base = base
        self._tables: dict[Place, Languages | InputError] = {}
        self._drawn: dict[tuple[str, int], _Drawn] = {}
        self._remarks: dict[str, str] = {}
        self._lacking: dict[str, str] = {}  # which class is missing from what is kept of a table

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages tested on; in-language runs train on each of them too."""
        return self.settings.languages or self.task.languages

    @property
    def source_language(self) -> str:
        """Language that zero-shot runs train on."""
        return self.settings.source_language or self.task.default_language

    @property
    def source_name(self) -> str:
        """What tables call the training data."""
        return self.settings.source_name or _last_name(self.settings.train.location)

    def train(self, language: str, shots: int) -> tuple[Rows, Rows | None]:
        """Return train rows, `shots` of each class, and dev rows, or None where `dev_shots` is 0.

        Raises `InputError` where there are none in that language, or too few.
        """
        drawn = self._draw(language, shots)
        return drawn.train, drawn.dev

    def test(self, language: str, shots: int) -> TestTable:
        """Return the rows that a run of these shots is tested on, the first `examples` of them or a `sample`.

        Without a test source they are what the draw of train and dev leaves of that language's table. Raises
        `InputError` where there are none.
        """
        source = self.settings.test
        found = self._rows(source, language) if source else self._rest(language, shots)
        chosen, how = _kept(found.rows, self.settings)
        if len(chosen) == len(found.rows):
            return TestTable(found.rows, found.remark)
        rows = found.rows.select(chosen)
        missing = _missing(found.rows, rows, self.task)
        if missing:
            self._lacking[rows.name] = f"{how} hold no {missing}; " + (
                "give a larger sample" if self.settings.sample else "give data.sample, which draws of every class"
            )
        return TestTable(rows, _joined(found.remark, how, f"no {missing}" if missing else ""))

    def notes(self) -> list[str]:
        """Return what is odd in the tables read so far, such as a class that none of the kept rows has, a line each."""
        return [f"{name}: {text}" for known in (self._remarks, self._lacking) for name, text in known.items()]

    def problems(self, setting: Setting, languages: Sequence[str], shots: Sequence[int]) -> list[str]:
        """Return every reason why runs of these languages and shots cannot be trained or tested, each with its mend.

        setting: ``zero-shot`` trains on the source language and tests on all `languages`; ``in-language`` trains on
        each and tests on the same. Reads all the data; where the list is empty no call of `train` or `test` fails.
        """
        trained = languages if setting == "in-language" else [self.source_language]
        found = _failures(self.train, product(trained, shots))
        if self.settings.test is not None:
            pairs = [
                (language if setting == "in-language" else self.source_language, language) for language in languages
            ]
            found += _failures(self.test, product(languages, shots[:1])) + self._shared_tables(pairs)
        elif setting == "in-language":
            found += _failures(self.test, product(languages, shots))
        else:
            found.append(f"data.test is missing: zero-shot runs need test rows of every language; {_TEST_MEND}")
        return list(dict.fromkeys(found))

    def _draw(self, language: str, shots: int) -> _Drawn:
        if (language, shots) not in self._drawn:
            make = self._read_splits if self.settings.train.kind == "fewshot" else self._draw_splits
            self._drawn[language, shots] = make(language, shots)
        return self._drawn[language, shots]

    def _read_splits(self, language: str, shots: int) -> _Drawn:
        root = self.base / self.settings.train.location
        folder = language_folder(root, language, alone=language == self.source_language)
        train, dev = read_fewshot(folder, self.task, shots=shots, dev_shots=self._dev_shots(shots))
        return _Drawn(self._known(train).rows, self._known(dev).rows if dev else None, rest=None)

    def _draw_splits(self, language: str, shots: int) -> _Drawn:
        table, dev_shots = self._rows(self.settings.train, language), self._dev_shots(shots)
        rows = table.rows
        split = draw(rows, self.task, shots=shots, dev_shots=dev_shots, seed=self.settings.train.draw_seed)
        rest = None
        if self.settings.test is None:
            note = f"rest of {self.source_name} ({len(split.rest):,} examples)"
            rest = Usable(rows.select(split.rest), _joined(note, table.remark))
        return _Drawn(rows.select(split.train), rows.select(split.dev) if split.dev else None, rest)

    def _rest(self, language: str, shots: int) -> Usable:
        rest = self._draw(language, shots).rest
        if rest is None:
            raise InputError(f"data.test is missing: folders of few-shot splits leave no rest; {_TEST_MEND}")
        if not len(rest.rows):
            raise InputError(
                f"{rest.rows.name}: {shots} shots and dev_shots {self._dev_shots(shots)} leave nothing to test on; "
                f"take fewer, or {_TEST_MEND}"
            )
        return rest

    def _dev_shots(self, shots: int) -> int:
        given = self.settings.train.dev_shots
        return shots if given is None else given

    def _rows(self, source: TrainSource | TestSource, language: str) -> Usable:
        """Return the usable rows of a language's table."""
        tables, name = self._table(source, language), fill(source.location, language)
        if language in tables:
            return tables[language]
        if ONLY not in tables:
            raise InputError(f"{name} has no rows in {language!r}; {choices(language, tables)}")
        if language != self.source_language and HOLE not in _pattern(source):
            raise InputError(
                f"{source.place}: {name} is of {self.source_language!r} alone and has none in {language!r}; write "
                f"{HOLE} where the language stands in its {'config' if source.kind == 'hub' else 'path'}"
            )
        return tables[ONLY]

    def _table(self, source: TrainSource | TestSource, language: str) -> Languages:
        """Return a table by language. What cannot be read is tried once, a data set out of reach in one config."""
        place = self._place(source, language)
        found = self._tables.get(place) or self._tables.get(place[:3])
        if found is None:
            self._make_room()
            try:
                found = self._read(source, language)
            except InputError as error:
                found = error
            self._tables[place[:3] if isinstance(found, UnreachableError) else place] = found
        if isinstance(found, InputError):
            raise found.with_traceback(None)
        return found

    def _make_room(self) -> None:
        """Forget the large tables; what was drawn from them is kept."""
        for place, found in list(self._tables.items()):
            if not isinstance(found, InputError) and sum(len(one.rows) for one in found.values()) > LARGE:
                del self._tables[place]

    def _place(self, source: TrainSource | TestSource, language: str) -> Place:
        where = fill(source.location, language)
        if source.kind == "hub":
            return (source.kind, where, source.revision, fill(source.config, language), source.split)
        return (source.kind, str(self.base / where))

    def _read(self, source: TrainSource | TestSource, language: str) -> Languages:
        where = fill(source.location, language)
        path = self.base / where
        if source.kind == "official":
            return {key: self._known(one) for key, one in read_official(path, self.task).items()}
        if source.kind != "hub":
            return {ONLY: self._known(Usable(read_rows(path, self.task)))}
        table = read_hub(
            str(path) if path.is_dir() else where,
            self.task,
            config=fill(source.config, language),
            split=source.split,
            revision=source.revision,
            label_names=source.label_names,
        )
        return {ONLY: self._known(table)}

    def _known(self, table: Usable) -> Usable:
        """Return a table whose name starts at the folder that the settings' paths are seen from; note its remark."""
        name = table.rows.name.removeprefix(f"{self.base}/")
        if table.remark:
            self._remarks[name] = table.remark
        return replace(table, rows=replace(table.rows, name=name))

    def _shared_tables(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """Return a problem for each table that is both drawn from and tested on, by (train, test) language."""
        train, test = self.settings.train, self.settings.test
        if test is None or train.kind == "fewshot":
            return []
        return [
            f"data.test: {fill(test.location, tested)} is the table that train is drawn from; give another, or for "
            "in-language runs leave data.test out to test on the rest of it"
            for trained, tested in pairs
            if self._place(train, trained)[1:] == self._place(test, tested)[1:]
        ]


def _kept(rows: Rows, settings: DataSettings) -> tuple[Sequence[int], str]:
    """Return which rows are tested on, and how they were chosen."""
    total, first, drawn, seed = len(rows), settings.examples, settings.sample, settings.sample_seed
    if drawn is not None:
        assert rows.labels is not None
        return sample(rows.labels, drawn, seed), f"{drawn:,} of {total:,} examples, drawn by class with seed {seed}"
    return range(total if first is None else min(first, total)), f"first {first or total:,} of {total:,} examples"


def _missing(rows: Rows, kept: Rows, task: Task) -> str:
    """Return the classes that some rows have and those kept of them have not, as a text."""
    lost = set(rows.labels or ()) - set(kept.labels or ())
    return " and no ".join(repr(task.labels[label]) for label in sorted(lost))


def digest(rows: Rows, task: Task) -> str:
    """Return the SHA-256, as hexadecimal, over a table's text columns, texts and label names, whatever it is called."""
    found = hashlib.sha256(canonical_json(task.columns).encode())
    labels = rows.labels or [None] * len(rows)
    for texts, label in zip(rows.texts, labels, strict=True):
        found.update(canonical_json([*texts, None if label is None else task.labels[label]]).encode())
    return found.hexdigest()


_TEST_MEND = f"add test: {{files: FOLDER/{HOLE}.tsv}}, hub or official under data"


def _failures(call: Callable[[str, int], object], arguments: Iterable[tuple[str, int]]) -> list[str]:
    """Return the messages of the calls that fail."""
    found = []
    for language, shots in arguments:
        try:
            call(language, shots)
        except InputError as error:
            found.append(str(error))
    return found


def _pattern(source: TrainSource | TestSource) -> str:
    return source.location + source.config if source.kind == "hub" else source.location


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _last_name(location: str) -> str:
    """Return the last name in a path that does not hold the language."""
    names = [name for name in PurePosixPath(location).parts if HOLE not in name and name not in ("..", "/")]
    return names[-1] if names else location
