from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.toys import toy_folder

from ltprompt.cli.main import main
from ltprompt.tasks import load_task, read_rows, task_names
from ltprompt.tasks.task import STARTERS

SINGLE = """
name: mood
labels: [good, bad]
columns: [text]
templates:
  soft: ["{text}", "{prompt}", "{mask}"]
words:
  en: {good: right, bad: wrong}
languages: [en]
"""


WORDS = ("the", "cat", "sat", "on", "a", "mat", "good", "bad")


class Cli:
    """Run commands as the program does, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object, status: int = 0) -> str:
        """Return stdout, or stderr where a failure is expected."""
        self.monkeypatch.setattr(sys, "argv", ["ltprompt", *map(str, arguments)])
        found = main()
        output = self.capsys.readouterr()
        assert found == status, output.err
        self.err = output.err
        return output.err if status else output.out


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


def table(path: Path, columns: tuple[str, ...], labels: tuple[str, ...], rows: int) -> Path:
    """Rows of random toy words, the last word of each field telling the label."""
    draw = random.Random(0)
    lines = ["\t".join((*columns, "label"))]
    for number in range(rows):
        label = labels[number % len(labels)]
        words = [" ".join(draw.choices(WORDS, k=6)) for _ in columns]
        lines.append("\t".join((*words, label)))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_commands_are_listed_without_heavy_imports() -> None:
    code = (
        "import sys, ltprompt.cli.tasks, ltprompt.cli.main\n"
        "print(sorted({'torch', 'transformers', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(("flag", "columns"), [([], 2), (["--pairs"], 2), (["--single"], 1)])
def test_a_starter_loads_and_checks_as_it_stands(cli: Cli, tmp_path: Path, flag: list[str], columns: int) -> None:
    path = tmp_path / "mine.yaml"
    assert str(path) in cli("task", "new", path, *flag)
    task = load_task(path)
    assert len(task.columns) == columns
    assert path.read_text().count("# ") > 10
    shown = cli("task", "check", path)
    for style in ("soft", "discrete", "mixed"):
        assert f"\n{style} template\n" in shown
    assert "note:" not in shown  # every starting word is one piece


def test_the_second_language_of_a_starter_needs_only_its_marks_removed(tmp_path: Path) -> None:
    for kind in STARTERS:
        source = (Path(load_task.__code__.co_filename).parent / "starters" / f"{kind}.yaml").read_text()
        path = tmp_path / f"{kind}.yaml"
        path.write_text(source.replace("  # sw:", "  sw:"))
        assert set(load_task(path).words) == {"en", "sw"}


def test_starters_are_no_tasks() -> None:
    assert not set(STARTERS) & set(task_names())


def test_a_starter_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    assert "mine.yaml exists already" in cli("task", "new", path, status=1)
    assert path.read_text() == "mine"
    assert "name it mine.yaml" in cli("task", "new", tmp_path / "mine.txt", status=1)


def test_check_shows_text_or_json(cli: Cli, tmp_path: Path) -> None:
    rows = table(tmp_path / "a.tsv", ("text",), ("good", "bad"), 8)
    (tmp_path / "mood.yaml").write_text(SINGLE)
    common = ["task", "check", tmp_path / "mood.yaml", "--data", rows, "--prompt-length", 2]
    shown = cli(*common)
    assert "<p2> <mask>" in shown
    assert f"{rows}: 8 rows; good 4, bad 4 (balanced)" in shown
    data = json.loads(cli(*common, "--json"))
    assert data["tables"][0]["labels"] == {"good": 4, "bad": 4}
    assert data["words"]["good"] == {"word": "right", "pieces": ["▁right"]}
    raw = tmp_path / "raw.tsv"
    raw.write_text("text\nthe cat\n")
    assert "no column 'label'" in cli("task", "check", tmp_path / "mood.yaml", "--data", raw, status=1)
    assert "read without labels" in cli("task", "check", tmp_path / "mood.yaml", "--data", raw, "--unlabelled")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("labels:", "lables:", "mood.yaml: unknown key 'lables'; did you mean 'labels'? choose from name, labels, "),
        (', "{mask}"', "", "mood.yaml: the soft template must name {mask} exactly once, found 0 times"),
        ("{good: right, bad: wrong}", "{good: right}", "'en' have none for the label 'bad'; add one"),
        ("{text}", "{txt}", "name in the soft template: 'txt'; did you mean 'text'? choose from text, prompt, mask"),
        ("{mask}", "{maks}", "'maks'; did you mean 'mask'?"),
        ("bad: wrong", "bda: wrong", "'bda'; did you mean 'bad'?"),
        ("columns: [text]", "columns: [texts]", "'text'; did you mean 'texts'?"),
        ("labels: [good, bad]", "labels: [good, sad]", "the words of 'en': 'bad'; did you mean 'sad'? choose from"),
    ],
)
def test_checking_and_training_refuse_a_bad_task_alike(
    cli: Cli, tmp_path: Path, old: str, new: str, message: str
) -> None:
    rows, path = table(tmp_path / "a.tsv", ("text",), ("good", "bad"), 8), tmp_path / "mood.yaml"
    path.write_text(SINGLE.replace(old, new))
    checked = cli("task", "check", path, "--data", rows, status=1)
    trained = cli("train", "mini", "--task", path, "--train", rows, "--out", tmp_path / "made" / "a", status=1)
    assert checked == trained
    assert checked.startswith(f"error: {path}: ")
    assert message in checked
    assert checked.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("txt\tlabel", "no column 'text'; found txt, label; did you mean 'txt'? rename it in the table or in the task"),
        ("text\tlabels", "no column 'label'; found text, labels; did you mean 'labels'? rename it in the table or in"),
    ],
)
def test_checking_and_training_refuse_a_table_without_a_column_alike(
    cli: Cli, tmp_path: Path, header: str, message: str
) -> None:
    task, rows = tmp_path / "mood.yaml", tmp_path / "a.tsv"
    task.write_text(SINGLE)
    rows.write_text(f"{header}\nthe cat\tgood\n")
    checked = cli("task", "check", task, "--data", rows, status=1)
    train = ["train", "mini", "--task", task, "--method", "prompt-only", "--out", tmp_path / "made" / "a"]
    good = table(tmp_path / "good.tsv", ("text",), ("good", "bad"), 8)
    for tables in (["--train", rows], ["--train", good, "--dev", rows]):
        assert cli(*train, *tables, status=1) == checked
    assert checked.startswith(f"error: {rows}, line 1: ")
    assert message in checked
    assert checked.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_split_writes_three_tables(cli: Cli, tmp_path: Path) -> None:
    rows = table(tmp_path / "a.tsv", ("premise", "hypothesis"), load_task("xnli").labels, 30)
    common = ["split", rows, "--task", "xnli", "--shots", 4, "--seed", 1]
    shown = cli(*common, "--out", tmp_path / "one", "--dev-shots", 2)
    assert f"{tmp_path / 'one' / 'train.4.jsonl'}: 12 rows (entailment 4, neutral 4, contradiction 4)" in shown
    sizes = {path.name: len(read_rows(path, load_task("xnli"))) for path in (tmp_path / "one").iterdir()}
    assert sizes == {"train.4.jsonl": 12, "dev.2.jsonl": 6, "rest.jsonl": 12}
    cli(*common, "--out", tmp_path / "two", "--dev-shots", 2)
    for name in sizes:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "train.4.jsonl exists already" in cli(*common, "--out", tmp_path / "one", "--dev-shots", 2, status=1)
    assert "--shots 5 with as many" in cli(*common[:5], 6, "--out", tmp_path / "three", status=1)
    assert not (tmp_path / "three").exists()


def test_split_stands_among_the_commands_of_a_task_too(cli: Cli, tmp_path: Path) -> None:
    rows = table(tmp_path / "a.tsv", ("premise", "hypothesis"), load_task("xnli").labels, 30)
    common = [rows, "--task", "xnli", "--shots", 4, "--out"]
    for words, out in ((["split"], "one"), (["task", "split"], "two")):
        cli(*words, *common, tmp_path / out)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["dev.4.jsonl", "rest.jsonl", "train.4.jsonl"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_starter_takes_its_place_as_out_too(cli: Cli, tmp_path: Path) -> None:
    for words, out in (([], "one.yaml"), (["--out"], "two.yaml")):
        assert f"task file in {tmp_path / out}" in cli("task", "new", *words, tmp_path / out)
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()
    assert "give the place to write once, as --out" in cli("task", "new", status=2)


def test_split_says_beforehand_what_it_leaves_out(cli: Cli) -> None:
    shown = " ".join(cli("split", "--help").split())
    assert "Columns that the task does not name are left out." in shown
    assert (
        "Rows that share only one of their texts, such as a premise, count as different and may fall on both" in shown
    )


def test_split_says_what_it_left_out(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mood.yaml").write_text(SINGLE)
    rows = tmp_path / "a.tsv"
    rows.write_text("text\tlabel\na\tgood\na.\tgood\nb\tbad\nc\tgood\nc\tbad\n")
    shown = cli("split", rows, "--task", tmp_path / "mood.yaml", "--shots", 1, "--dev-shots", 0, "--out", tmp_path)
    assert "dev.0.jsonl" not in shown
    assert "note: left out as copies of drawn rows: 1" in cli.err
    assert "note: never drawn, their texts standing under several labels: 2 rows" in cli.err


@pytest.mark.parametrize(("flag", "text"), [("--single", ("text",)), ("--pairs", ("first", "second"))])
def test_a_task_of_ones_own_from_start_to_predictions(
    cli: Cli, tmp_path: Path, flag: str, text: tuple[str, ...]
) -> None:
    task, backbone = tmp_path / "own.yaml", toy_folder("bert", tmp_path / "toy", layers=1)
    cli("task", "new", task, flag)
    rows = table(tmp_path / "own.tsv", text, load_task(task).labels, 24)
    common = ["--max-length", 48, "--prompt-length", 2]
    assert "own.tsv" in cli("task", "check", task, "--data", rows, "--backbone", backbone, *common)
    cli("split", rows, "--task", task, "--shots", 4, "--out", tmp_path)
    fast = ["--device", "cpu", "--dtype", "fp32", "--threads", 1]
    tables = ["--train", tmp_path / "train.4.jsonl", "--dev", tmp_path / "dev.4.jsonl"]
    settings = ["--method", "prompt-only", "--epochs", 1, *common, *fast]
    cli("train", backbone, "--task", task, *tables, "--out", tmp_path / "adapter", *settings)
    shown = cli("evaluate", tmp_path / "adapter", "--data", f"en={tmp_path / 'rest.jsonl'}", *fast)
    assert shown.splitlines()[1].split()[:2] == ["en", "8"]
    predicted = cli("predict", tmp_path / "adapter", rows, *fast).splitlines()
    assert predicted[0].split("\t") == ["example", "predicted", *load_task(task).labels]
    assert len(predicted) == 25
