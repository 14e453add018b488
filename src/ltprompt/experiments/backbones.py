"""Backbones of a grid: each loaded once a process, one held at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from ltprompt.backbone import Backbone
from ltprompt.device import Compute


@dataclass
class Backbones:
    """Loads backbones by name and revision and holds the last one, so that runs of one backbone load it once.

    fingerprints: of those loaded so far.
    """

    compute: Compute
    fingerprints: dict[tuple[str, str | None], str] = field(default_factory=dict)
    _held: tuple[tuple[str, str | None], Backbone] | None = None

    def get(self, name: str, revision: str | None) -> Backbone:
        """Return a loaded backbone. Raises what `Backbone.from_pretrained` raises."""
        key = (name, revision)
        if self._held is None or self._held[0] != key:
            self._held = None  # let it go before the next is loaded
            backbone = Backbone.from_pretrained(name, revision=revision, device=self.compute.device)
            self.fingerprints[key] = backbone.fingerprint
            self._held = (key, backbone)
        return self._held[1]

    def release(self) -> None:
        """Let the loaded backbone go."""
        self._held = None

    def fingerprint(self, name: str, revision: str | None) -> str:
        """Return a backbone's fingerprint, loading it where that has not been done."""
        key = (name, revision)
        if key not in self.fingerprints:
            self.get(*key)
        return self.fingerprints[key]
