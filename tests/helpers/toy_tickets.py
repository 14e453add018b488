"""Small tickets whose entries are written down."""

from __future__ import annotations

import numpy as np

from ltprompt.backbone.parameters import EligibleParameter
from ltprompt.tickets.ticket import Ticket

PARAMETERS = (
    EligibleParameter("word", (4, 5), 0, "word_embeddings"),
    EligibleParameter("1.query", (3, 3), 1, "query"),
    EligibleParameter("1.dense", (11,), 1, "dense"),
    EligibleParameter("2.query", (3, 3), 2, "query"),
    EligibleParameter("2.dense", (11,), 2, "dense"),
)
Entries = dict[str, set[int]]
A: Entries = {"word": {0, 3, 4, 7, 8, 19}, "1.query": {1, 8}, "1.dense": {10}}
B: Entries = {"word": {3, 5, 19}, "1.query": {1}, "1.dense": {2, 10}, "2.dense": {0, 1, 2, 10}}


def ticket(entries: Entries, parameters: tuple[EligibleParameter, ...] = PARAMETERS) -> Ticket:
    bitmaps = {}
    for parameter in parameters:
        if parameter.name in entries:
            flat = np.zeros(parameter.numel, dtype=bool)
            flat[list(entries[parameter.name])] = True
            bitmaps[parameter.name] = np.packbits(flat, bitorder="little")
    return Ticket(parameters, bitmaps, False, "f" * 64, "decoupled", 0.2, "global", "all", 2)
