"""Run the command line as ``python -m ltprompt``."""

from __future__ import annotations

import sys

from ltprompt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
