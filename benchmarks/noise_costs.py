"""The cost of a judge's errors in the reproduction: the table shipped with `trl-balcap exam`.

    python -m benchmarks.noise_costs

Nothing is trained: reads `benchmarks/results/reproduce.jsonl` and writes
`trl_balcap/exam/noise.json`, the b-CapScore (0 to 100, sampled captions) that the full method lost
under each noisy judge, with a 95% t interval over seeds. Arms with fewer than three seeds are left
out.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.reproduction.arms import LEVELS, NOISE
from benchmarks.reproduction.claims import Part, difference
from benchmarks.reproduction.experiments import read_results
from benchmarks.reproduction.inference import LEAST_SEEDS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reproduce.jsonl"
TABLE = ROOT / "trl_balcap" / "exam" / "noise.json"
KINDS = ("correct", "pointable", "covered", "grades")


def noise_table(results: Path = RESULTS) -> dict[str, Any]:
    """The table, from the available runs."""
    found = read_results(results)
    arms = []
    for kind in (*KINDS, "all"):
        for level, (deviation, flip) in LEVELS.items():
            name = level if kind == "all" else f"{kind}_{level}"
            assert name in NOISE
            lost = difference(Part("b_capscore", "full", f"noise_{name}"), found, "sampled")
            if lost.n < LEAST_SEEDS:
                continue
            arms.append(
                {
                    "kind": kind,
                    "error": deviation if kind == "grades" else flip,
                    "points": round(100 * lost.mean, 2),
                    "low": round(100 * lost.low, 2),
                    "high": round(100 * lost.high, 2),
                    "seeds": lost.n,
                }
            )
    return {"command": "python -m benchmarks.noise_costs", "arms": arms}


def main() -> int:
    table = noise_table()
    TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"Written: {TABLE.relative_to(ROOT)}, {len(table['arms'])} arms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
