"""What a classification task is, as data: label set, text columns, templates and words of each language.

A task is a YAML file. Adding one is writing such a file; the packaged ones are beside this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ltprompt.errors import InputError, choices, explain
from ltprompt.files.text import read_utf8
from ltprompt.files.yaml import parse_yaml
from ltprompt.settings import Frozen, later

STYLES = ("soft", "discrete", "mixed")
PROMPT = "prompt"
MASK = "mask"
BASE = "base"
STARTERS = ("pairs", "single")


class Task(Frozen):
    """A task: everything about the data that the methods need to know. Cross-checked when built (`InputError`).

    name: how the task is called.
    labels: label names, in the order of the class indices.
    columns: text columns of a table, in the order of the fields of an example.
    label_column: column of the label names.
    templates: prompting style (``soft``, ``discrete``, ``mixed``) -> parts, each tokenised on its own. A part is plain
        text or one name in braces: a column, ``{prompt}``, ``{mask}`` or a pattern word.
    words: language -> label -> the word that stands for the label (the verbaliser).
    pattern_words: language -> name -> the text a template shows for ``{name}``.
    default_language: language of words and pattern words where the user names none.
    strip_punctuation: whether trailing ASCII punctuation of the texts is dropped before templating.
    languages: languages the task is evaluated on; they may have no words of their own. Those of `words` where none
        are given.
    label_names: label of the numbers 0, 1, ... where data hold numbers; every label is named.
    label_map: other codes in data, as text -> label. A number's text is its digits, a truth value's true or false, in
        quotes.
    """

    name: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    label_column: str = "label"
    templates: dict[str, tuple[str, ...]]
    words: dict[str, dict[str, str]]
    pattern_words: dict[str, dict[str, str]] = Field(default={})
    default_language: str = "en"
    strip_punctuation: bool = True
    languages: tuple[str, ...] = ()
    label_names: tuple[str, ...] = later(())
    label_map: dict[str, str] = later({})

    @field_validator("label_map", mode="before")
    @classmethod
    def _take_codes(cls, given: Any) -> Any:
        return _by_text(given) if isinstance(given, Mapping) else given

    @model_validator(mode="before")
    @classmethod
    def _take_languages(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("languages") and isinstance(given.get("words"), dict):
            return {**given, "languages": list(given["words"])}
        return given

    @model_validator(mode="after")
    def _check(self) -> Task:
        _check_names(self)
        _check_codes(self)
        _check_words(self)
        for style, parts in self.templates.items():
            _check_template(self, style, parts)
        return self

    @property
    def label_codes(self) -> dict[str, str]:
        """What stands for a label beside its name: code -> label, of `label_names` and `label_map`."""
        return {str(number): label for number, label in enumerate(self.label_names)} | self.label_map

    def words_for(self, language: str) -> dict[str, str]:
        """Return label -> word in the order of `labels`. Raises `InputError` for a language without words."""
        if language not in self.words:
            raise InputError(f"task {self.name} has no words in {language!r}; {choices(language, self.words)}")
        return {label: self.words[language][label] for label in self.labels}

    def template_for(self, style: str, language: str) -> tuple[str, ...]:
        """Return the parts of a template with the pattern words of a language filled in.

        Raises `InputError` for a style or a language that the task does not have.
        """
        if style not in self.templates:
            raise InputError(f"task {self.name} has no {style!r} template; {choices(style, self.templates)}")
        self.words_for(language)
        pattern = self.pattern_words.get(language, {})
        return tuple(pattern.get(placeholder(part) or "", part) for part in self.templates[style])


def placeholder(part: str) -> str | None:
    """Return the name in a part ``{name}`` of a template, or None where the part is plain text."""
    match = re.fullmatch(r"\{([^{}]+)\}", part)
    return match[1] if match else None


def code_text(value: Any) -> str | None:
    """Return the text by which a code is known: 0, 0.0 and " 0 " are "0", True is "true". None for what is no code."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def load_task(name_or_path: str | Path) -> Task:
    """Return a packaged task by name, or the task in a YAML file (a path that ends in .yaml or .yml).

    A file may say ``base: NAME`` (or the path of another file, seen from its own folder) and give only the keys that
    differ. Raises `InputError` for an unknown name, a missing file or a task that is not sound.
    """
    data, where = _read_with_bases(str(name_or_path), Path(), ())
    return parse_task(data, where)


def parse_task(data: Mapping[str, Any], where: str) -> Task:
    """Return the task in plain data, such as ``task.model_dump()`` gives; `where` opens an `InputError`'s message."""
    try:
        _refuse_unknown("key", data, [*Task.model_fields, BASE])
        return Task.model_validate(dict(data))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error.errors()[0])}") from error


def task_names() -> list[str]:
    """Return the names of the packaged tasks."""
    return sorted(_packaged())


def starter_text(kind: str) -> str:
    """Return a commented task file to start from: ``pairs`` of texts or ``single`` texts."""
    if kind not in STARTERS:
        raise InputError(f"unknown starter {kind!r}; {choices(kind, STARTERS)}")
    return (resources.files("ltprompt.tasks") / "starters" / f"{kind}.yaml").read_text(encoding="utf-8")


def _packaged() -> dict[str, Traversable]:
    files = resources.files("ltprompt.tasks").iterdir()
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def _read_with_bases(name: str, folder: Path, seen: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Return the keys of a task laid over those of its base, and where the task was found."""
    if name.endswith((".yaml", ".yml")):
        path = folder / name
        where, folder, text = str(path), path.parent, read_utf8(path, "the YAML file of a task")
    elif name in _packaged():
        where, text = f"task {name}", _packaged()[name].read_text(encoding="utf-8")
    else:
        raise InputError(f"unknown task {name!r}; {choices(name, _packaged())}, or give the path of a .yaml file")
    if where in seen:
        raise InputError(f"{where} is its own base ({' -> '.join((*seen, where))}); remove one base")
    data = _parse(text, where)
    base = data.pop(BASE, None)
    if base is None:
        return data, where
    return {**_read_with_bases(str(base), folder, (*seen, where))[0], **data}, where


def _parse(text: str, where: str) -> dict[str, Any]:
    data = parse_yaml(text, where)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(f"{where} does not hold the keys of a task; it needs {', '.join(Task.model_fields)}")
    return data


def _refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise InputError(f"unknown {what} {name!r}; {choices(name, known)}")


def _check_names(task: Task) -> None:
    if len(task.labels) < 2:
        raise InputError(f"a task needs at least two labels, found {list(task.labels)}")
    if not task.columns or not task.templates:
        raise InputError("a task needs at least one text column and one template")
    for what, names in (("labels", task.labels), ("columns", (*task.columns, task.label_column, PROMPT, MASK))):
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise InputError(f"{what}: {double[0]!r} is used twice ({PROMPT!r} and {MASK!r} are taken); rename one")
    for label in task.labels:
        if label != label.strip():
            raise InputError(
                f"labels: {label!r} has white space around it, which tables do not; write {label.strip()!r}"
            )
    _refuse_unknown("style of template", task.templates, STYLES)


def _by_text(codes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return label_map by the text of its codes; what is no code stays, for pydantic to refuse."""
    by_text: dict[Any, Any] = {}
    for code, label in codes.items():
        if isinstance(code, bool):
            raise InputError(
                f"label_map: the code {code} is no text; YAML reads yes, no, on, off so: write it in quotes, "
                "and 'true' or 'false' for a truth value in data"
            )
        text = code_text(code)
        if by_text.setdefault(code if text is None else text, label) != label:
            raise InputError(f"label_map: the code {text} stands for {by_text[text]!r} and for {label!r}; remove one")
    return by_text


def _check_codes(task: Task) -> None:
    _refuse_unknown("label in label_names:", task.label_names, task.labels)
    _refuse_unknown("label in label_map:", task.label_map.values(), task.labels)
    for label in task.labels if task.label_names else ():
        if label not in task.label_names:
            raise InputError(f"label_names has no number for the label {label!r}; name every label, or use label_map")
    for number, label in enumerate(task.label_names):
        other = task.label_map.get(str(number), label)
        if other != label:
            raise InputError(f"the code {number} is {label!r} in label_names and {other!r} in label_map; remove one")
    for code, label in task.label_codes.items():
        if code in task.labels and code != label:
            raise InputError(
                f"the code {code} stands for {label!r} and is a label too, so a table could not tell them apart; "
                "rename the label, or leave out label_names and label_map"
            )


def _check_words(task: Task) -> None:
    if not task.words:
        raise InputError("a task needs label words in at least one language, such as words: {en: {LABEL: WORD, ...}}")
    for language, words in task.words.items():
        _refuse_unknown(f"label in the words of {language!r}:", words, task.labels)
        for label in task.labels:
            if not words.get(label, "").strip():
                raise InputError(f"the words of {language!r} have none for the label {label!r}; add one")
    _refuse_unknown("language of pattern words:", task.pattern_words, task.words)
    _refuse_unknown("default_language", [task.default_language], task.words)
    for language, pattern in task.pattern_words.items():
        for name, text in pattern.items():
            if name in (*task.columns, PROMPT, MASK):
                raise InputError(
                    f"the pattern word {name!r} of {language!r} is named like a column or like {PROMPT!r} or {MASK!r}, "
                    "so a template could not tell them apart; rename it"
                )
            if not text.strip() or placeholder(text):
                raise InputError(f"the pattern word {name!r} of {language!r} must be plain text, found {text!r}")


def _check_template(task: Task, style: str, parts: tuple[str, ...]) -> None:
    for part in parts:
        if not part.strip() or (placeholder(part) is None and re.search(r"[{}]", part)):
            raise InputError(f"the {style} template's part {part!r} is neither plain text nor one {{name}}; split it")
    names = [name for part in parts if (name := placeholder(part))]
    own = [*task.columns, PROMPT, MASK]
    needed = {MASK: 1, PROMPT: 0 if style == "discrete" else 1} | dict.fromkeys(task.columns, 1)
    known = {*own, *(name for pattern in task.pattern_words.values() for name in pattern)}
    _refuse_unknown(f"name in the {style} template:", names, [*own, *sorted(known.difference(own))])
    for name, count in needed.items():
        if names.count(name) != count:
            often = "exactly once" if count else "never"
            raise InputError(f"the {style} template must name {{{name}}} {often}, found {names.count(name)} times")
    for language in task.words:
        missing = [name for name in names if name not in own and name not in task.pattern_words.get(language, {})]
        if missing:
            raise InputError(f"the {style} template needs the pattern word {missing[0]!r}; {language!r} has none")
