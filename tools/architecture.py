"""Draw the package's rooms and the arrows between them, from its imports: `python tools/architecture.py [--check]`.

Writes the part of docs/architecture.md between its two markers; with --check it writes nothing and fails where that
part is out of date. An arrow that a chain of other arrows says already is not drawn; the table has every count.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = "ltprompt"
BEGIN, END = "<!-- made by `make architecture`: begin -->\n", "<!-- made by `make architecture`: end -->\n"
BUSIEST = 10
USAGE = "usage: python tools/architecture.py [--check]"

Arrows = Counter[tuple[str, str]]  # (importing room, imported room) -> how many imports there are


def main(arguments: list[str]) -> str | None:
    """Write or check the page; return a line that says what is wrong, None where nothing is."""
    if arguments not in ([], ["--check"]):
        return USAGE
    text = PAGE.read_text(encoding="utf-8")
    made = renewed(text, rendered(imports(), line_counts()))
    if not arguments:
        PAGE.write_text(made, encoding="utf-8")
    elif made != text:
        return f"{PAGE.relative_to(ROOT)} is not what the imports say; run: make architecture"
    return None


def imports() -> dict[str, set[str]]:
    """Return module -> modules of the package that it imports, without the package's own first and last module.

    `__init__.py` hands out every public name and `__main__.py` starts the command line: neither lives in a room.
    """
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    inside = [name for name in graph.modules if name not in (PACKAGE, f"{PACKAGE}.__main__")]
    return {name: graph.find_modules_directly_imported_by(name) - {PACKAGE} for name in inside}


def line_counts() -> dict[str, int]:
    """Return module -> lines of its file."""
    folder = ROOT / "src" / PACKAGE
    found = {}
    for path in folder.rglob("*.py"):
        parts = (PACKAGE, *path.relative_to(folder).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = len(path.read_text(encoding="utf-8").splitlines())
    return found


def room(module: str) -> str:
    """Return the name at the top of the package that a module lives under."""
    return module.split(".")[1]


def arrows_between(imported: Mapping[str, Iterable[str]]) -> Arrows:
    """Return how often one room imports another."""
    pairs = ((room(module), room(other)) for module, others in imported.items() for other in others)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def order(rooms: Iterable[str], arrows: Iterable[tuple[str, str]]) -> list[str]:
    """Return the rooms from top to bottom: none imports one above it. Raises `graphlib.CycleError` for a circle."""
    below: dict[str, list[str]] = {name: [] for name in sorted(rooms)}  # lists: a set's order is another every time
    for importing, imported in sorted(arrows):
        below[importing].append(imported)
    return list(TopologicalSorter(below).static_order())[::-1]


def drawn(rooms: Iterable[str], arrows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arrows that no chain of others implies (the transitive reduction), from top to bottom."""
    ordered, pairs = order(rooms, arrows := list(arrows)), set(arrows)
    reach: dict[str, set[str]] = {}
    for name in reversed(ordered):
        below = {imported for importing, imported in pairs if importing == name}
        reach[name] = below.union(*(reach[other] for other in below))
    implied = {(a, c) for a, b in pairs for c in reach[b]}
    return sorted(pairs - implied, key=lambda pair: (ordered.index(pair[0]), ordered.index(pair[1])))


def rendered(imported: Mapping[str, set[str]], lines: Mapping[str, int]) -> str:
    """Return the diagram and the two tables as Markdown."""
    arrows = arrows_between(imported)
    rooms = order({room(name) for name in imported}, arrows)
    return "\n".join([*_diagram(rooms, arrows), "", *_rooms(rooms, arrows, lines), "", *_busiest(imported, lines), ""])


def renewed(text: str, made: str) -> str:
    """Return a page with what stands between its markers replaced. Raises `ValueError` where it lacks a marker."""
    before, found, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"{PAGE.name} lacks a marker; it needs {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _diagram(rooms: list[str], arrows: Arrows) -> list[str]:
    """Return a Mermaid flowchart, which GitHub draws."""
    folder = ROOT / "src" / PACKAGE
    boxes = [f'    {name}["{name}{"/" if (folder / name).is_dir() else ".py"}"]' for name in rooms]
    lines = [f"    {a} -->|{arrows[a, b]}| {b}" for a, b in drawn(rooms, arrows)]
    return ["```mermaid", "flowchart TD", *boxes, *lines, "```"]


def _rooms(rooms: list[str], arrows: Arrows, lines: Mapping[str, int]) -> list[str]:
    rows = ["| room | modules | lines | imports (how often) |", "|---|---|---|---|"]
    for name in rooms:
        own = [module for module in lines if module != PACKAGE and room(module) == name]
        modules = sum(lines[module] > 1 for module in own)
        below = ", ".join(f"{other} {arrows[name, other]}" for other in rooms if (name, other) in arrows)
        rows.append(f"| `{name}` | {modules} | {_rounded(sum(lines[module] for module in own))} | {below or '-'} |")
    return rows


def _busiest(imported: Mapping[str, set[str]], lines: Mapping[str, int]) -> list[str]:
    fan_in = Counter(other for others in imported.values() for other in others)
    rows = ["| module | lines | imported by | imports |", "|---|---|---|---|"]
    for name, count in sorted(fan_in.items(), key=lambda pair: (-pair[1], pair[0]))[:BUSIEST]:
        short = name.removeprefix(f"{PACKAGE}.")
        rows.append(f"| `{short}` | {_rounded(lines[name])} | {count} | {len(imported[name])} |")
    return rows


def _rounded(lines: int) -> str:
    """Return a number of lines to the ten, so that the page is not out of date after every small edit."""
    return f"{max(round(lines, -1), 10):,}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
