"""What `import everloop` costs a program that uses it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from bench.figures import Figure, Plan, Rounds
from bench.place import ROOT

#: The high-water mark of this program's own memory; `ru_maxrss` would begin with that of its parent.
_MEMORY = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
#: Starts per sample.
STARTS = 7


def importing(plan: Plan) -> list[Figure]:
    """Start Python with and without the import; the difference is its cost."""
    rounds = Rounds()
    for _ in range(plan.rounds):
        bare_ms, bare_mb = _start("")
        least_ms, _ = _start("import asyncio, msgspec;")
        least = max(least_ms - bare_ms, 1.0)
        for name, program in ("lazy", "import everloop;"), ("app", "from everloop import App;"):
            ms, megabytes = _start(program)
            rounds.note(**{f"{name}_ms": ms - bare_ms, f"{name}_mb": megabytes - bare_mb})
        rounds.note(least=least)
    limit, over = "import asyncio, msgspec", "over bare Python"
    return [
        Figure("import", f"import everloop, {over}", rounds["lazy_ms"], "ms"),
        Figure("import.memory", f"import everloop: memory {over}", rounds["lazy_mb"], "MB"),
        Figure(
            "import.app", f"from everloop import App, {over}", rounds["app_ms"], "ms", limit, rounds["least"]
        ),
        Figure("import.app_memory", f"from everloop import App: memory {over}", rounds["app_mb"], "MB"),
    ]


def _start(program: str) -> tuple[float, float]:
    """Return the median milliseconds and megabytes of Python processes that run this."""
    times: list[float] = []
    memory: list[float] = []
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for _ in range(STARTS):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program + _MEMORY],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        times.append((time.perf_counter() - started) * 1e3)
        memory.append(float(done.stdout) / 1024)
    return statistics.median(times), statistics.median(memory)
