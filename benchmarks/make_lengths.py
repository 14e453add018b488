"""Makes benchmarks/lengths.json: how long real inputs are, in tokens, without a word of their text.

    python -m benchmarks.make_lengths FOLDER_OF_DATA

FOLDER_OF_DATA holds xnli/dev, xnli/fewshot and wiki, as the tests marked `real` have them. Tokens are counted with the
embedded backbone's tokenizer: its vocabulary is XLM-R's cut to 36,000 pieces, so its counts are somewhat higher.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.lengths import EXAMPLES, LINES, PATH, Lengths
from ltprompt.backbone.loading import MINI, load_tokenizer
from ltprompt.files.artifacts import atomic_path, canonical_json
from ltprompt.stage1.corpus import TokenizedCorpus, read_lines
from ltprompt.tasks import load_task, read_rows
from ltprompt.tasks.template import Template

MAX_LENGTH = 256
SHOTS = 32


def main(data: Path) -> None:
    """Count and write; the lines are taken at equal distances from the whole file."""
    task, tokenizer = load_task("xnli"), load_tokenizer(MINI)
    parts = task.template_for("soft", task.default_language)
    template = Template.build(
        parts, task.columns, tokenizer, prompt_length=4, max_length=MAX_LENGTH, strip_punctuation=task.strip_punctuation
    )

    def count(path: Path, rows: int | None = None) -> list[int]:
        return [len(example.ids) for example in template.encode(read_rows(path, task).texts[:rows])]

    fewshot = data / "xnli" / "fewshot" / "en"
    lines = read_lines([data / "wiki" / "en.txt"])
    chosen = lines[:: len(lines) // LINES][:LINES]
    found = Lengths(
        lines=TokenizedCorpus.build(chosen, tokenizer, max_length=MAX_LENGTH).lengths.tolist(),
        train=count(fewshot / f"train.{SHOTS}.jsonl"),
        dev=count(fewshot / f"dev.{SHOTS}.jsonl"),
        test={name: count(data / "xnli" / "dev" / f"{name}.tsv", EXAMPLES) for name in task.languages},
    )
    with atomic_path(PATH) as temporary:
        temporary.write_text(canonical_json(found.model_dump()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.make_lengths FOLDER_OF_DATA")
    main(Path(sys.argv[1]))
