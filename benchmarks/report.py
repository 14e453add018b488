"""Results as a Markdown document: every implementation of every case, and every goal, met or missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, CHECKED_STEPS, OURS
from benchmarks.goals import GOALS, Goal
from benchmarks.results import WHOLE_RUN, WHOLE_RUN_TITLE, Record, Results, mean_series
from ltprompt.files.artifacts import atomic_path, write_text

NOTES = ".notes.md"
CHART = ".linear.png"
LINEAR = "linear-"

METHOD = """\
Written by `python -m benchmarks table`; the numbers stand in `{json}`.

Every implementation of a case runs in fresh processes, one after the other in turn, on the same ids in the same
batches, from the same weights and ticket, with the same threads and precision. Before anything is timed each one runs
{steps} steps (or one evaluation) without dropout, and its losses and what it trained must agree with ours; what does
not agree is not timed. Times are medians of the laps that count, after warm-up, with dropout on. Memory is the median
over processes of the largest anonymous memory; the largest resident memory (`ru_maxrss`, without what a process
inherits of its parent's) counts mapped files too. Ids are made up and words come as
often as in text (Zipf); the lengths are real: XNLI and Wikipedia, counted with the embedded tokenizer, whose vocabulary
is XLM-R's cut to 36,000 pieces. The rivals take as many examples at once as fit the memory and accumulate gradients
over the batch. Trainer and published loop freeze the backbone where only the prompt trains, and the output matrix
always. An evaluation is timed on the same number of examples of each language, evenly spaced, and scaled to 500 of
each; of the published loop, whose padded examples cost the same each, a quarter of that, and of its threshold some 70
million scores are timed and scaled, so that the memory of the latter is understated. The last
column is useful arithmetic (without padding, and of the last layer what is read of it) over the best measured rate of
matrix products in that precision, or bytes that must move over the best measured bandwidth of a copy.
"""


def write_report(source: Path, target: Path) -> None:
    """Write the document, the chart of what is linear where that was measured, and nothing else.

    A file beside the results whose name ends in ``.notes.md`` is taken in at the end: what was tried for missed goals.
    """
    results = Results.load(source)
    chart = source.with_name(source.stem + CHART)
    series = [record for record in results.records.values() if record["case"].startswith(LINEAR)]
    if any(record["implementations"] for record in series):
        _draw(series, chart)
    write_text(target, markdown(results, source, chart))


def markdown(results: Results, source: Path, chart: Path) -> str:
    """Return the document."""
    parts = [
        "# Benchmarks",
        METHOD.format(json=source.name, steps=CHECKED_STEPS),
        _machine(results),
        "## Goals",
        _goals(results),
    ]
    for shape, dtype in sorted({key[:2] for key in results.records}, key=lambda pair: (pair[0] != "xlmr", pair)):
        records = [record for key, record in sorted(results.records.items()) if key[:2] == (shape, dtype)]
        plain = [record for record in records if not record["case"].startswith(LINEAR)]
        linear = [record for record in records if record["case"].startswith(LINEAR) and record["implementations"]]
        parts += [f"## {shape}, {dtype}", *([_rows(results, plain)] if plain else []), *map(_series, linear)]
        parts += [f"![time against size]({chart.name})"] if linear else []
        parts += [f"- {record['title']}: {name}: {why}" for record in records for name, why in _failures(record)]
    notes = source.with_name(source.stem + NOTES)
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8").strip())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _machine(results: Results) -> str:
    machine = results.machine
    lines = [
        f"{machine['cores']} cores ({machine['processor']}; {' '.join(machine['flags']) or 'no flags known'}), "
        f"{_size(machine['memory'])} of memory, torch {machine['torch']}, transformers {machine['transformers']}."
    ]
    for threads, floors in sorted(results.floors.items()):
        rates = ", ".join(f"{dtype} {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in floors["matmul"].items())
        lines.append(f"{threads} thread(s): {rates}, copies {floors['bandwidth'] / 1e9:.1f} GB/s.")
    return "\n".join(lines)


def _goals(results: Results) -> str:
    rows, missing = [], []
    for goal in GOALS:
        for dtype in goal.dtypes:
            value = goal.value(results, dtype)
            if value is None:
                missing.append(f"- {_work(goal)}, {dtype}: {_what(goal)}")
            else:
                verdict = "met" if goal.met(value) else "**missed**"
                rows.append([_work(goal), dtype, _what(goal), f"{value:.3g}", _bound(goal), verdict])
    if not rows:
        return "Nothing that a goal is set for was measured."
    header = ["work", "precision", "measure", "measured", "goal", ""]
    found = markdown_table(header, rows)
    return "\n\n".join([found, "Goals not measured:", "\n".join(missing)]) if missing else found


def _work(goal: Goal) -> str:
    return WHOLE_RUN_TITLE if goal.case == WHOLE_RUN else CASES[goal.case].title


def _what(goal: Goal) -> str:
    return f"{goal.measure}, {goal.against}" if goal.against else goal.measure


def _bound(goal: Goal) -> str:
    return f"{'≥' if goal.at_least else '≤'} {goal.bound:g}"


def _rows(results: Results, records: Sequence[Record]) -> str:
    header = ["work", "", "seconds", "times ours", "memory", "ours over it", "resident", "agrees within", "floor"]
    rows = []
    for record in records:
        key = (record["shape"], record["dtype"], record["case"])
        for name in sorted(record["implementations"], key=lambda name: not name.startswith(OURS)):
            rows.append([record["title"], name, *_numbers(results, key, name, record)])
    return markdown_table(header, rows)


def _numbers(results: Results, key: tuple[str, str, str], name: str, record: Record) -> list[str]:
    seconds, ours = results.seconds(key, name), results.seconds(key)
    memory, our_memory = results.memory(key, name), results.memory(key)
    check = record["checks"].get(name)
    return [
        _shown(seconds, "{:.3g}".format),
        _shown(seconds / ours if seconds and ours else None, "{:.2f}".format),
        _shown(memory, _size),
        _shown(our_memory / memory if memory and our_memory else None, "{:.2f}".format),
        _shown(record["implementations"][name]["max_rss"], _size),
        "-" if check is None else f"{max(check['loss'], check['tensors']):.1g}",
        _shown(results.floor_share(key, name), "{:.0%}".format),
    ]


def _series(record: Record) -> str:
    measured = record["implementations"][OURS]
    unit = measured["notes"]["unit"]
    rows = [
        [f"{size:,}", f"{seconds:.3g}", f"{1e3 * seconds / size:.3g}"]
        for size, seconds in zip(measured["notes"]["sizes"], mean_series(measured), strict=True)
    ]
    return f"{record['title']}:\n\n{markdown_table([unit, 'seconds', f'ms / {unit[:-1]}'], rows)}"


def _failures(record: Record) -> list[tuple[str, str]]:
    """Return who of a case was not measured, and why."""
    known = {**record["implementations"], **record["failures"]}
    names = [each.name for each in CASES[record["case"]].implementations] if record["case"] in CASES else []
    return sorted([*record["failures"].items(), *((name, "not measured") for name in names if name not in known)])


def _draw(records: Sequence[Record], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [record for record in records if record["implementations"]]
    figure = Figure(figsize=(4.5 * len(shown), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, record in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        measured = record["implementations"][OURS]
        sizes = measured["notes"]["sizes"]
        seconds = mean_series(measured)
        axes.loglog(sizes, seconds, "o-", label="measured")
        axes.loglog(sizes, [seconds[0] * size / sizes[0] for size in sizes], "--", label="linear from the first")
        axes.set_title(f"{record['title']}\n{record['shape']}, {record['dtype']}")
        axes.set_xlabel(measured["notes"]["unit"])
        axes.set_ylabel("seconds")
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={})


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None else form(value)


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
