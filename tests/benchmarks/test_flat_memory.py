"""The benchmark of memory, and the figures it has kept."""

import json

from benchmarks.flat_memory import GOAL, MARKS, counter, drawn
from benchmarks.results_file import RESULTS


def test_memory_is_read_at_the_marks():
    marks = {2: 0.0, 3: 0.0}
    count = counter(marks)
    count()
    assert marks == {2: 0.0, 3: 0.0}
    count()
    assert (marks[2] > 1.0, marks[3]) == (True, 0.0)


def test_images_differ():
    assert len({drawn(number) for number in (0, 1, 256, 257, 65_536)}) == 5


def test_the_kept_figures_reach_the_goal():
    kept = json.loads((RESULTS / "flat_memory.json").read_text())["caption"]["resident_mib"]
    first, *_, last = (kept[str(mark)] for mark in MARKS)
    assert last <= GOAL * first
