"""YAML with a look at its keys; what is sound reads as the plain safe loader reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import ltprompt
from ltprompt.errors import InputError
from ltprompt.files.yaml import parse_yaml

MERGED = """
b: {<<: &a {x: 1, y: 2}, x: 3}
c: &c
  <<: *a
  y: 4
d:
  <<: *c
  x: 5
e: {<<: [*a, *c], z: 6}
"""
DOUBLY_MERGED = "a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml, line 3: the key 'a' stands in line 1 too; remove one"),
        ("a: 1\n'a': 3\n", "line 2: the key 'a' stands in line 1 too"),
        ("{a: 1, a: 1}", "line 1: the key 'a' stands in line 1 too"),
        ("top:\n  - {b: 1}\n  - b: 2\n    c: 3\n    b: 4\n", "line 5: the key 'b' stands in line 3 too"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n  x: 3\n", "line 5: the key 'x' stands in line 4 too"),
        ("a: [1", "x.yaml is not valid YAML: .* line 1"),
        ("a: !!python/object/apply:os.getcwd []", "x.yaml is not valid YAML: could not determine a constructor"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_yaml(text, "x.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [MERGED, DOUBLY_MERGED, "", "3", "a: {b: 1}\nc: {b: 2}\n", "1: a\n'1': b\n"])
def test_what_is_sound_is_read_as_ever(text: str) -> None:
    assert parse_yaml(text, "x.yaml") == yaml.safe_load(text)


def test_the_packaged_files_have_no_key_twice() -> None:
    files = list(Path(ltprompt.__file__).parent.rglob("*.yaml"))
    assert len(files) > 5
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert parse_yaml(text, file.name) == yaml.safe_load(text)
