"""Grids from their file to their ledger and report, on a toy backbone laid out as on the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.toy_classifiers import TRAIN, write_table
from helpers.toy_grids import grid_of, make_base, written
from helpers.toys import toy_backbone

from ltprompt.backbone.model import Backbone
from ltprompt.classifier import PromptClassifier
from ltprompt.errors import InputError, MismatchError
from ltprompt.experiments.folder import GridFolder, read_results
from ltprompt.experiments.grid import tickets as tickets_module
from ltprompt.experiments.records import RunRecord
from ltprompt.experiments.report.report import write_report
from ltprompt.experiments.run import worker as worker_module
from ltprompt.experiments.run.driver import Where, pack_grid, plan_grid, run_grid
from ltprompt.experiments.run.ledger import Ledger
from ltprompt.experiments.run.local import OnEvent, Summary
from ltprompt.stage1.corpus import read_lines
from ltprompt.stage1.criteria import find_criterion
from ltprompt.stage1.training import Step, Watcher
from ltprompt.tasks import read_rows
from ltprompt.tickets.scores import Scores
from ltprompt.tickets.ticket import Ticket

HERE = Where(device="cpu", dtype="fp32", threads=1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@contextmanager
def silent(total: int, first: int) -> Iterator[OnEvent]:
    yield lambda kind, spec, counts: None


def run(
    name: str,
    out: Path,
    where: Where = HERE,
    *,
    on_event: Callable[[int, int], Any] = silent,
    watcher: Watcher | None = None,
) -> Summary:
    plan = plan_grid(name, out, where, stage_one=lambda: nullcontext(watcher), say=lambda text: None)
    return run_grid(plan, where, on_event=on_event).summary


def problems(name: str, out: Path) -> str:
    with pytest.raises(InputError) as found:
        run(name, out)
    assert not out.exists(), "nothing may be written before everything is checked"
    return str(found.value)


def files(out: Path) -> dict[str, bytes]:
    """The records, and the report made of them."""
    write_report(read_results(out), out / "report")
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in ("runs", "report", "tickets")
        for path in sorted((out / folder).iterdir())
    }


def ledger_rows(out: Path) -> list[Any]:
    with Ledger.open(GridFolder(out).ledger) as ledger:
        return list(ledger.rows())


@pytest.fixture(scope="session")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that ran to its end."""
    out = tmp_path_factory.mktemp("finished") / "out"
    summary = run(written(base), out)
    assert (summary.counts.done, summary.counts.failed, summary.interrupted) == (16, 0, False)
    return out


def records(out: Path) -> list[RunRecord]:
    return list(read_results(out).runs)


def test_a_run_is_what_the_library_does_by_hand(base: Path, finished: Path) -> None:
    backbone = Backbone.from_pretrained(base / "toy")
    for record in records(finished):
        spec = record.spec
        if (spec.method, spec.shots, spec.seed) not in (("ltp", 2, 1), ("dp", 1, 2)):
            continue
        ticket = None
        if spec.ticket is not None:
            (path,) = (finished / "tickets").glob(
                "*random-seed1*.safetensors" if spec.ticket.criterion == "random" else "*delta*.safetensors"
            )
            ticket = Ticket.load(path)
            assert (ticket.criterion, ticket.ratio) == (spec.ticket.criterion, 0.3)
        classifier = PromptClassifier(
            backbone, "xnli", spec.method, ticket, epochs=2, lr=0.01, max_length=48, seed=spec.seed, language="en"
        )
        split = base / "splits" / "en"
        train, dev = (
            read_rows(split / f"{part}.{spec.shots}.jsonl", classifier.resolved.task) for part in ("train", "dev")
        )
        fit = classifier.fit(train, dev).history_
        tests = {code: read_rows(base / f"test.{code}.tsv", classifier.resolved.task) for code in ("en", "sw")}
        found = classifier.evaluate(tests)
        assert record.result.kept_epoch == fit.kept_epoch
        assert record.result.losses == tuple(epoch.loss for epoch in fit.epochs)
        for code, result in record.result.languages.items():
            hits = found.probabilities[code].argmax(1) == found.gold[code]
            assert result.hits == "".join(str(int(hit)) for hit in hits)
            assert result.accuracy == float(hits.mean())
            assert result.macro_f1 == found.by_language[code].macro_f1_of_all


def test_a_grid_takes_two_calls_and_says_nothing(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = written(base, seeds=[1], shots=[1], scores=None, methods=["prompt-only"])
    plan = plan_grid(grid, str(tmp_path / "out"))
    assert repr(plan) == "Plan(toy, 1 runs, 0 tickets)"
    ran = run_grid(plan)
    assert (ran.summary.counts.done, ran.summary.counts.failed) == (1, 0)
    write_report(read_results(str(tmp_path / "out")), str(tmp_path / "report"))
    assert (tmp_path / "report" / "report.csv").is_file()
    assert capsys.readouterr() == ("", "")


def test_runs_know_all_that_makes_them_what_they_are(base: Path, finished: Path) -> None:
    found = records(finished)
    assert len({record.spec.id for record in found}) == 16
    assert {record.spec.fingerprint for record in found} == {toy_backbone("xlm-roberta", layers=3).fingerprint}
    ft = next(record.spec for record in found if record.spec.method == "ft")
    assert ft.settings == {
        "optimizer": "adam", "lr": 0.01, "prompt_lr": 0.01, "batch_size": 8, "epochs": 2, "weight_decay": 0.01,
        "schedule": "constant", "clip": 1.0, "prompt_length": 4, "max_length": 48, "language": "en", "size": None,
    }  # fmt: skip
    assert ft.tests["sw"].name == "test.sw.tsv"
    assert (ft.source, ft.dtype, ft.language, ft.train.examples) == ("Toys", "fp32", "en", 3 * ft.shots)


def test_scores_and_tickets_are_made_once_and_the_random_one_by_seed(finished: Path) -> None:
    (scores,) = (finished / "scores").iterdir()
    loaded = Scores.load(scores)
    tickets = {path.stem.rpartition("-")[0]: Ticket.load(path) for path in (finished / "tickets").glob("*.safetensors")}
    assert sorted(tickets) == [
        "decoupled-delta-0.3-global-all",
        "decoupled-random-seed1-0.3-global-all",
        "decoupled-random-seed2-0.3-global-all",
    ]
    delta = tickets["decoupled-delta-0.3-global-all"]
    assert delta.scores_sha256 == loaded.sha256
    assert {ticket.size for ticket in tickets.values()} == {delta.size}
    used = {(r.spec.seed, r.spec.ticket.seed) for r in records(finished) if r.spec.ticket and r.spec.ticket.seed}
    assert used == {(1, 1), (2, 2)}


def test_a_second_start_runs_nothing(base: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(finished)
    monkeypatch.setattr(PromptClassifier, "fit", lambda *_, **__: pytest.fail("a finished run was run again"))
    monkeypatch.setattr(
        "ltprompt.experiments.grid.tickets.find_scores", lambda *_, **__: pytest.fail("stage 1 ran again")
    )
    summary = run(written(base), finished)
    assert (summary.counts.done, summary.counts.planned) == (16, 0)
    assert files(finished) == before


def test_a_packed_grid_goes_on_where_it_was_without_scores_and_tickets(base: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"shots": 1, "methods": ["dp", {"method": "ltp", "ratio": 0.3, "select": "random"}]}
    run(written(base, seeds=[1, 2], **small), tmp_path / "whole")
    out = tmp_path / "packed"
    run(written(base, seeds=1, **small), out)
    rows = ledger_rows(out)
    pack_grid(GridFolder(out))
    shutil.rmtree(out / "tickets")
    before = (out / "records.jsonl").read_bytes()
    assert run(written(base, seeds=1, **small), out).counts.done == 2
    assert ledger_rows(out) == rows
    assert sorted(path.name for path in out.iterdir()) == ["grid.yaml", "ledger.sqlite", "records.jsonl"]
    assert (out / "records.jsonl").read_bytes() == before
    run(written(base, seeds=[1, 2], **small), out)
    assert len(list((out / "runs").iterdir())) == 2, "what is packed was not run again"
    assert read_results(out) == read_results(tmp_path / "whole")
    assert ledger_rows(out) == ledger_rows(tmp_path / "whole")


def test_a_grid_that_is_being_run_is_not_packed(base: Path, tmp_path: Path) -> None:
    run(written(base, seeds=1, shots=1, methods="dp", scores=None), tmp_path)
    with Ledger.open(tmp_path / "ledger.sqlite"), pytest.raises(InputError, match="is being run by process"):
        pack_grid(GridFolder(tmp_path))
    assert (tmp_path / "plan.json").is_file()


def test_a_changed_default_and_a_new_seed_are_new_runs(base: Path, tmp_path: Path) -> None:
    small = {"methods": "dp", "shots": 1, "scores": None}
    first = run(written(base, seeds=1, **small), tmp_path)
    second = run(written(base, seeds=[1, 2], **small), tmp_path)
    third = run(written(base, seeds=1, **{**small, "lr": 0.02}), tmp_path)
    assert [summary.counts.done for summary in (first, second, third)] == [1, 2, 1]
    assert len(list((tmp_path / "runs").iterdir())) == 3
    assert len(records(tmp_path)) == 1, "the report is of the grid as it now is"


class Stopping:
    """Raises a keyboard interrupt when the k-th run starts."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.counts = (0, 0)

    @contextmanager
    def __call__(self, total: int, first: int) -> Iterator[OnEvent]:
        self.counts = (total, first)

        def hear(kind: str, spec: Any, counts: Any) -> None:
            if kind == "started":
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt

        yield hear


def test_interrupted_and_resumed_anywhere_it_ends_the_same(base: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"seeds": 1, "methods": ["dp", {"method": "ltp", "ratio": 0.3}]}
    name = written(base, **changes)
    run(name, tmp_path / "whole")
    for number in range(4):
        out = tmp_path / f"stopped{number}"
        stopped = run(name, out, on_event=Stopping(number))
        assert (stopped.interrupted, stopped.counts.done) == (True, number)
        going_on = Stopping(99)
        resumed = run(name, out, on_event=going_on)
        assert (resumed.interrupted, resumed.counts.done) == (False, 4)
        assert going_on.counts == (4, number), "what was finished before is not counted in the time left"
        assert files(out) == files(tmp_path / "whole")
        assert ledger_rows(out) == ledger_rows(tmp_path / "whole")


class Breaking(Watcher):
    """Counts steps and raises a keyboard interrupt after one of them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps: list[int] = []

    def step(self, step: Step) -> None:
        self.steps.append(step.number)
        if step.number == self.number:
            raise KeyboardInterrupt


def test_an_interrupted_stage_one_goes_on_from_its_checkpoint(base: Path, tmp_path: Path) -> None:
    scores = {"text": "en.txt", "steps": 4, "batch_size": 4, "max_length": 32, "evaluate_every": 2}
    name = written(base, seeds=1, shots=1, scores=scores, methods={"method": "ltp", "ratio": 0.3})
    run(name, tmp_path / "whole")
    broken, whole = Breaking(3), Breaking(0)
    with pytest.raises(KeyboardInterrupt):
        run(name, tmp_path / "out", watcher=broken)
    run(name, tmp_path / "out", watcher=whole)
    assert (broken.steps, whole.steps) == ([1, 2, 3], [3, 4])
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_without_its_tickets_a_finished_grid_needs_none_and_a_longer_one_makes_the_same(
    base: Path, tmp_path: Path
) -> None:
    small: dict[str, Any] = {"shots": 1, "methods": {"method": "ltp", "ratio": 0.3}}
    run(written(base, seeds=1, **small), tmp_path)
    (path,) = (tmp_path / "tickets").glob("*.safetensors")
    data = path.read_bytes()
    path.unlink()
    run(written(base, seeds=1, **small), tmp_path)
    assert not path.exists()
    run(written(base, seeds=[1, 2], **small), tmp_path)
    assert path.read_bytes() == data


def test_a_random_ticket_needs_no_stage_one_and_is_what_scores_would_give(base: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"shots": 1, "seeds": 2, "methods": {"method": "ltp", "ratio": 0.3, "select": "random"}}
    run(written(base, **small), tmp_path)
    assert not (tmp_path / "scores").exists()
    (path,) = (tmp_path / "tickets").glob("*.safetensors")
    run(written(base, **small | {"methods": [small["methods"], {"method": "ltp", "ratio": 0.3}]}), tmp_path)
    (scores,) = (tmp_path / "scores").iterdir()
    expected = tmp_path / "expected.safetensors"
    find_criterion(Scores.load(scores), "random", seed=2).select(0.3).save(expected)
    assert path.read_bytes() == expected.read_bytes()


def test_a_shipped_ticket_is_taken_for_a_record_that_speaks_of_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, Any] = {"shots": 1, "methods": {"method": "ltp", "ratio": 0.3}}
    run(written(base, seeds=1, **small), tmp_path)
    (path,) = (tmp_path / "tickets").glob("*.safetensors")
    names = ("other", "elsewhere", "same")
    shipped = {name: tmp_path / f"{name}.safetensors" for name in names}
    (scores,) = (tmp_path / "scores").iterdir()
    Scores.load(scores).select(0.4).save(shipped["other"])
    replace(Ticket.load(path), fingerprint="0" * 64).save(shipped["elsewhere"])  # equal entries of another backbone
    data = path.read_bytes()
    path.rename(shipped["same"])
    shutil.rmtree(tmp_path / "scores")
    monkeypatch.setattr(tickets_module, "READY", shipped)
    assert run(written(base, seeds=[1, 2], **small), tmp_path).counts.done == 2
    assert not (tmp_path / "scores").exists(), "no stage 1 was run"
    assert path.read_bytes() == data


def test_a_ticket_that_is_not_what_its_record_says_is_refused(base: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"shots": 1, "methods": {"method": "ltp", "ratio": 0.3}}
    run(written(base, seeds=1, **small), tmp_path)
    (path,) = (tmp_path / "tickets").glob("*.safetensors")
    (scores,) = (tmp_path / "scores").iterdir()
    Scores.load(scores).select(0.3, "layer").save(path)
    with pytest.raises(MismatchError, match=r"was made anew and is not what .*json says"):
        run(written(base, seeds=[1, 2], **small), tmp_path)


def test_ready_scores_and_tickets_serve_as_well(base: Path, finished: Path, tmp_path: Path) -> None:
    (scores,) = (finished / "scores").iterdir()
    (ticket,) = (finished / "tickets").glob("*delta*.safetensors")
    methods = [{"method": "ltp", "ratio": 0.3}, {"method": "ltp", "ticket": str(ticket)}]
    name = written(base, seeds=1, shots=1, scores={"folder": str(scores)}, methods=methods)
    assert run(name, tmp_path).counts.done == 1, "the same ticket either way, so one run"
    assert not (tmp_path / "scores").exists()


def test_in_language_runs_train_and_read_each_language_with_its_own_words(base: Path, tmp_path: Path) -> None:
    name = written(
        base, seeds=1, shots=1, setting="in-language", layouts="table3", methods="dp", scores=None, task="task.yaml"
    )
    words = {"en": ["right", "maybe", "wrong"], "sw": ["good", "bad", "no"]}
    labels = ("entailment", "neutral", "contradiction")
    task = {
        "name": "nli", "base": "xnli", "languages": ["en", "sw"], "pattern_words": {},
        "templates": {"discrete": ["{premise}", ".", "{hypothesis}", "{mask}"]},
        "words": {code: dict(zip(labels, one, strict=True)) for code, one in words.items()},
    }  # fmt: skip
    (base / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    run(name, tmp_path)
    found = {record.spec.language: record for record in records(tmp_path)}
    assert {code: (set(r.result.languages), r.spec.settings["language"]) for code, r in found.items()} == {
        "en": ({"en"}, "en"),
        "sw": ({"sw"}, "sw"),
    }
    assert found["sw"].spec.train.name == "splits/sw/train.1.jsonl"


def test_a_language_without_words_uses_the_task_s_own(base: Path, tmp_path: Path) -> None:
    for part in ("train", "dev"):
        (base / "splits" / "quy").mkdir(exist_ok=True)
        (base / "splits" / "quy" / f"{part}.1.jsonl").write_text((base / f"splits/en/{part}.1.jsonl").read_text())
    write_table(base / "test.quy.tsv", TRAIN)
    data = {**grid_of(base)["data"], "languages": ["quy"]}
    run(written(base, seeds=1, shots=1, setting="in-language", methods="sp", scores=None, data=data), tmp_path)
    (record,) = records(tmp_path)
    assert (record.spec.language, record.spec.settings["language"]) == ("quy", "en")


def test_a_failed_run_is_recorded_tried_once_more_and_the_rest_goes_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = PromptClassifier.fit, []

    def fit(self: PromptClassifier, *given: Any, **named: Any) -> Any:
        if self.method == "ft":
            tries.append(1)
            raise RuntimeError("no luck")
        return real(self, *given, **named)

    monkeypatch.setattr(worker_module.PromptClassifier, "fit", fit)
    name = written(base, seeds=1, shots=1, methods=["ft", "dp"], scores=None)
    summary = run(name, tmp_path)
    assert (summary.counts.done, summary.counts.failed, len(tries)) == (1, 1, 2)
    assert next(iter(summary.failures.values())).startswith("RuntimeError: no luck")
    monkeypatch.setattr(worker_module.PromptClassifier, "fit", real)
    assert run(name, tmp_path).counts.done == 2


def test_two_drivers_on_one_folder_are_refused(base: Path, tmp_path: Path) -> None:
    name = written(base, seeds=1, shots=1, methods="dp", scores=None)
    with Ledger.open(GridFolder(tmp_path).ledger), pytest.raises(InputError, match=f"process {os.getpid()} on "):
        run(name, tmp_path)
    assert run(name, tmp_path).counts.done == 1


def test_all_problems_with_the_data_are_listed_before_anything_runs(base: Path, tmp_path: Path) -> None:
    data = {**grid_of(base)["data"], "languages": ["en", "xx"]}
    found = problems(written(base, data=data, shots=[1, 3], scores={"text": "english.txt"}), tmp_path / "out")
    assert "problems:" in found
    for text in ("test.xx.tsv does not exist", "train.3.jsonl", "english.txt does not exist"):
        assert text in found, text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "nowhere"}, "no backbone at 'nowhere'"),
        ({"task": "xnly"}, "unknown task 'xnly'; did you mean 'xnli'?"),
        ({"methods": {"method": "lora", "size": 2.5}}, "`size` 2.5 does not suit method 'lora'"),
        ({"methods": {"method": "sp", "size": 8}}, "method 'sp' takes no `size`"),
        ({"max_length": 9999}, "`max_length` 9999 is outside 8 to"),
        ({"max_length": 12}, "`max_length` 12 is too short"),
        ({"methods": {"method": "ltp", "ticket": "mini-20"}}, "the ticket is for the backbone"),
        ({"methods": {"method": "ltp", "ticket": "no.safetensors"}}, "no.safetensors does not exist"),
        ({"scores": {"folder": "none"}}, "scores.folder: "),
        ({"methods": {"method": "ltp", "ratio": 0.3, "layers": "2-9"}}, "the segment '2-9' cannot be used"),
        ({"scores": {"text": "en.txt", "max_length": 9999}}, "`max_length` 9999 is outside 8 to"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in problems(written(base, **changes), tmp_path / "out")


def test_another_checkpoint_under_the_same_name_fails_the_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker_module.Backbones.get

    def other(self: Any, name: str, revision: str | None) -> Any:
        backbone = real(self, name, revision)
        return toy_backbone("bert") if len(called) > 0 else backbone

    called: list[int] = []
    name = written(base, seeds=1, shots=1, methods="dp", scores=None)
    plan = plan_grid(name, tmp_path, HERE, stage_one=lambda: nullcontext(None), say=lambda text: None)
    called.append(1)
    monkeypatch.setattr(worker_module.Backbones, "get", other)
    summary = run_grid(plan, HERE, on_event=silent).summary
    assert summary.counts.failed == 1
    assert "put the same checkpoint on every machine" in next(iter(summary.failures.values()))


def test_scores_of_another_strategy_are_refused_before_anything_runs(
    base: Path, finished: Path, tmp_path: Path
) -> None:
    (scores,) = (finished / "scores").iterdir()
    methods = {"method": "ltp", "ratio": 0.3, "strategy": "frozen-embeddings"}
    found = problems(written(base, scores={"folder": str(scores)}, methods=methods), tmp_path / "out")
    assert "holds scores of strategy decoupled" in found


def test_changed_scores_in_the_same_folder_are_new_tickets_and_runs(base: Path, finished: Path, tmp_path: Path) -> None:
    (scores,) = (finished / "scores").iterdir()
    shutil.copytree(scores, tmp_path / "scores")
    name = written(
        base, seeds=1, shots=1, scores={"folder": str(tmp_path / "scores")}, methods={"method": "ltp", "ratio": 0.3}
    )
    first = run(name, tmp_path / "out")
    old = Scores.load(tmp_path / "scores")
    turned = {key: 1 / (1 + value) for key, value in old.tensors.items()}
    shutil.rmtree(tmp_path / "scores")
    Scores(old.parameters, turned, old.strategy, old.fingerprint).save(tmp_path / "scores", {})
    second = run(name, tmp_path / "out")
    assert (first.counts.done, second.counts.done) == (1, 1)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2
    assert len(list((tmp_path / "out" / "tickets").glob("*.safetensors"))) == 2


def test_a_grid_cuts_gradients_as_the_command_does(base: Path, finished: Path, tmp_path: Path) -> None:
    (place,) = (finished / "scores").iterdir()
    methods = {"method": "ltp", "ratio": 0.3, "select": "gradient"}
    scores = {"folder": str(place), "text": "en.txt"}
    run(written(base, seeds=1, shots=1, scores=scores, methods=methods), tmp_path)
    (path,) = (tmp_path / "tickets").glob("*.safetensors")
    backbone = Backbone.from_pretrained(base / "toy")
    texts = read_lines([base / "en.txt"])
    expected = find_criterion(Scores.load(place), "gradient", backbone=backbone, texts=texts, max_length=32)
    found = Ticket.load(path)
    wanted = expected.select(0.3)
    assert found.bitmaps.keys() == wanted.bitmaps.keys()
    assert all((found.bitmaps[name] == wanted.bitmaps[name]).all() for name in wanted.bitmaps)


def test_a_backbone_s_folder_is_seen_from_the_grid_s(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(written(base, backbone="toy", seeds=1, shots=1, methods="dp", scores=None), Path("out")).counts.done == 1
    (record,) = records(Path("out"))
    assert record.spec.backbone == str(base / "toy")


def test_a_run_that_is_asked_for_twice_is_one(base: Path, tmp_path: Path) -> None:
    methods = ["dp", {"method": "dp", "epochs": [2]}]
    summary = run(written(base, seeds=1, shots=1, methods=methods, scores=None), tmp_path)
    assert (summary.counts.done, summary.counts.planned) == (1, 0)


def test_ready_tickets_are_recorded_under_their_names(base: Path, finished: Path, tmp_path: Path) -> None:
    (ticket,) = (finished / "tickets").glob("*delta*.safetensors")
    shutil.copy(ticket, tmp_path / "mine.safetensors")
    methods = {"method": "ltp", "ticket": str(tmp_path / "mine.safetensors")}
    run(written(base, seeds=1, shots=1, methods=methods, scores=None), tmp_path / "out")
    results = read_results(tmp_path / "out")
    assert [record.spec.name for record in results.tickets] == ["mine"]
    assert results.runs[0].spec.ticket == results.tickets[0].spec


@pytest.mark.parametrize(
    ("where", "gpus", "share", "device"),
    [
        (Where("cpu", workers=2), 8, 0.0, "cpu"),
        (Where("auto", workers=2), 0, 0.0, "cpu"),
        (Where("auto", workers=2), 1, 0.5, "cuda"),
        (Where("auto", workers=2), 8, 1.0, "cuda"),
        (Where("auto", ray="auto"), 1, 1.0, "cuda"),
        (Where("cuda", ray="auto"), 0, 1.0, "cuda"),
        (Where("auto", ray="auto", gpus=0.25), 0, 0.25, "cuda"),
        (Where("auto", workers=2, gpus=0), 8, 0.0, "cpu"),
        (Where("auto"), 8, 1.0, "auto"),
    ],
)
def test_workers_share_gpus_or_have_none(
    where: Where, gpus: int, share: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert (where.gpus_per_worker, where.worker_device) == (share, device)


def test_workers_on_cuda_without_a_gpu_are_refused() -> None:
    with pytest.raises(InputError, match="give `gpus` of 1 or less"):
        _ = Where("cuda:0", workers=2, gpus=0).gpus_per_worker
