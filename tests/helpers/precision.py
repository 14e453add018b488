"""One precision on every machine: where bf16 is fast, `auto` would take it, and digits would differ from fp32's."""

from __future__ import annotations

from ltprompt import device

FAST = device.FAST_BF16


def keep_fp32() -> None:
    """Let `auto` know of no instruction set that makes bf16 fast."""
    device.FAST_BF16 = ()  # type: ignore[assignment]
