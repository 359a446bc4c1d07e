"""Which cells there are to be met, and how often each is aimed at."""

from __future__ import annotations

from tests.sim.faults import Cell, Fault

#: The cells (verb, state before) that schedules reach, and the weight of aims at them: rarer ones weigh more.
CELLS: dict[Cell, int] = {("turn", "reaped"): 1}

AIMS: list[tuple[Cell, Fault]] = [(cell, fault) for cell in CELLS for fault in Fault]
WEIGHTS: list[int] = [CELLS[cell] for cell, _ in AIMS]
