"""Backbones of a grid: each loaded once a process, one held at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ltprompt.backbone.loading import MINI
from ltprompt.backbone.model import Backbone
from ltprompt.device import Compute, return_freed_memory
from ltprompt.terminal import Phase, no_phase


@dataclass
class Backbones:
    """Loads backbones by name and revision and holds the last one, so that runs of one backbone load it once.

    base: what relative folders are seen from. phase: shows that one is loaded. fingerprints: of those loaded so far.
    """

    compute: Compute
    base: Path = Path()
    phase: Phase = no_phase
    fingerprints: dict[tuple[str, str | None], str] = field(default_factory=dict)
    _placed: set[str] = field(default_factory=set)
    _held: tuple[tuple[str, str | None], Backbone] | None = None

    def place(self, name: str) -> str:
        """Return where a backbone is loaded from: a folder seen from the base if there is one, else what was given."""
        if name == MINI or name in self._placed or not (self.base / name).is_dir():
            return name
        self._placed.add(str(self.base / name))
        return str(self.base / name)

    def get(self, name: str, revision: str | None) -> Backbone:
        """Return a loaded backbone. Raises what `Backbone.from_pretrained` raises."""
        key = (self.place(name), revision)
        if self._held is None or self._held[0] != key:
            self._held = None  # let it go before the next is loaded
            with self.phase(f"loading {key[0]}"):
                backbone = Backbone.from_pretrained(key[0], revision=revision, device=self.compute.device)
                self.fingerprints[key] = backbone.fingerprint
            self._held = (key, backbone)
        return self._held[1]

    def release(self) -> None:
        """Let the loaded backbone go, and give the memory of what was computed with it back to the system."""
        self._held = None
        return_freed_memory()

    def fingerprint(self, name: str, revision: str | None) -> str:
        """Return a backbone's fingerprint, loading it where that has not been done."""
        key = (self.place(name), revision)
        if key not in self.fingerprints:
            self.get(*key)
        return self.fingerprints[key]
