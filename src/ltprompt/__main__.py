"""Run the command line, as ``ltprompt`` and as ``python -m ltprompt``."""

from __future__ import annotations

import sys


def main() -> int:
    """Import and run the command line; return its exit status, 130 by Ctrl-C while it is still being imported too."""
    try:
        from ltprompt.cli.main import main as run
    except KeyboardInterrupt:
        print("error: interrupted; nothing had begun", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
