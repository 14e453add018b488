"""CONTRIBUTING.md, CITATION.cff and docs: the files, commands and words that they name are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ltprompt"
PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "docs/log.md")
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Return what GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def glossary() -> list[list[str]]:
    table = read("docs/architecture.md").split("\n## Words\n")[1]
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = read(page)
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", text)]
    assert links
    assert [place for place, _, _ in links if not ((ROOT / page).parent / place).exists()] == []
    assert {name for place, _, name in links if name and not place} <= anchors(text)


def test_contributing_names_files_and_targets_that_there_are() -> None:
    text = read("CONTRIBUTING.md")
    named = re.findall(r"`((?:src|tests|docs)/[\w/.]+|[\w]+\.(?:md|toml|txt|yaml))`", text)
    places = (
        ROOT,
        ROOT / "src" / "ltprompt" / "tasks",
        ROOT / "src" / "ltprompt" / "stage2",
        ROOT / "tests" / "helpers",
    )
    made_up = {"src/ltprompt/tasks/NAME.yaml", "docs/results/NAME"}
    assert [name for name in named if name not in made_up and not any((p / name).exists() for p in places)] == []
    targets = set(re.findall(r"^([\w-]+):.* ## ", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", re.sub(r"make\) *|make and|make hooks  +#.*", "", text))) <= targets


def test_the_helpers_of_tests_are_all_named() -> None:
    helpers = {path.name for path in (ROOT / "tests" / "helpers").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", read("CONTRIBUTING.md"))) >= helpers


def test_the_glossary_is_in_order_and_says_where_each_word_lives() -> None:
    rows = glossary()
    words = [row[0] for row in rows]
    assert len(words) > 50
    assert words == sorted(words, key=str.lower)
    assert [row for row in rows if len(row) != 3 or not (SOURCE / row[2].strip("`")).is_file()] == []
    assert [row[0] for row in rows if len(row[1].split()) < 3] == []


def test_the_rooms_of_the_lives_are_there() -> None:
    text = read("docs/architecture.md").split("## The life of a training row")[1].split("\n## Words\n")[0]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", text))
    assert len(named) > 8
    assert [name for name in named if not (SOURCE / name).exists()] == []
    lives = text.split("## The life of an adapter")
    assert [len(re.findall(r"^\d+\. ", life, re.MULTILINE)) for life in lives] == [10, 10]


def test_the_functions_of_the_lives_are_there() -> None:
    """A line names a room and its main function, such as `PromptClassifier.fit`."""
    text = read("docs/architecture.md").split("## The life of a training row")[1].split("\n## Words\n")[0]
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    named = set(re.findall(r"`([A-Za-z_]+(?:\.(?!py`)[a-z_]+)?)`", text))
    assert len(named) > 10
    for name in named:
        for part in name.split("."):
            assert re.search(rf"\b(?:def|class) {part}\b", code), name


def test_the_citation_is_of_this_version_and_names_every_source() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert f'version = "{CITATION["version"]}"' in read("pyproject.toml")
    titles = [CITATION["title"], *(reference["title"] for reference in CITATION["references"])]
    cited = " ".join(read("README.md").split("## Citation")[1].split("## Licence")[0].split())
    assert [title for title in titles[1:] if title not in cited] == []


def test_the_changelog_has_a_section_a_version() -> None:
    sections = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert sections[:2] == ["Unreleased", CITATION["version"]]
    assert len(set(sections)) == len(sections)


def test_the_log_has_a_day_a_section_the_newest_last() -> None:
    days = re.findall(r"^## (.*)$", read("docs/log.md"), re.MULTILINE)
    dates = [re.match(r"20\d\d-\d\d-\d\d: ", day) for day in days]
    assert all(dates)
    assert days == sorted(days)
