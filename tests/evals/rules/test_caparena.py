"""CapArena's reading of a reply: the official expression's, in time that any reply allows."""

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from trl_balcap.evals.rules.caparena import read_judgment


def official(reply):
    reason = re.search(r"Reason:\s*(.+?)\s*Judgment:", reply, re.DOTALL)
    judgment = re.search(r"Judgment:\s*(.+)", reply)
    if not reason or not reason[1].strip() or not judgment:
        return None
    return judgment[1].strip() or None


@settings(max_examples=1000)
@given(
    st.lists(st.sampled_from(["Reason:", "Judgment:", " ", "\n", "\u3000", "x", "Tie"])).map(
        "".join
    )
)
def test_it_reads_what_the_official_expression_reads(reply):
    assert read_judgment(reply) == official(reply)


def test_a_reply_without_an_end_takes_no_time():
    begin = time.process_time()

    assert read_judgment("Reason: x" + "\n" * 200_000) is None
    assert read_judgment(("Reason:" + " " * 50) * 4_000) is None
    assert time.process_time() - begin < 1.0
