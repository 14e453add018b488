"""Make the embedded backbone from a Hugging Face folder: `python tools/embed_backbone.py FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ltprompt.backbone.int8 import save_small
from ltprompt.backbone.loading import SMALL_WEIGHTS, mini_folder
from ltprompt.backbone.model import Backbone

USAGE = "usage: python tools/embed_backbone.py FOLDER"


def main(source: Path) -> None:
    """Quantise the weights; copy configuration and tokenizer."""
    out = mini_folder()
    backbone = Backbone.from_pretrained(source)
    save_small(out / SMALL_WEIGHTS, backbone.parameters)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, out / name)
    print(f"{out / SMALL_WEIGHTS}: {(out / SMALL_WEIGHTS).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(USAGE)
    main(Path(sys.argv[1]))
