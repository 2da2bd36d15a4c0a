r"""
Prism's rules. The rewards in the table are what the functions of InternLM/CapRL at 9bbc1bb give for
these replies with math-verify 0.9.0 (verify_math; for charts and documents the larger of it and
verify_chart), run once by hand.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.evals.rules.prism import boxed, reward_of, turns_of


def reply(answer: str) -> str:
    return rf"<think>x</think> <answer>The answer is \boxed{{{answer}}}</answer>"


OFFICIAL = [
    (reply("A"), "A", "plain", 1.0),
    (reply("B"), "A", "plain", 0.0),
    (reply(r"\frac{1}{2}"), "0.5", "plain", 1.0),
    (reply(r"50\%"), "0.5", "plain", 1.0),
    (reply("3.0"), "3", "plain", 1.0),
    (reply(r"\text{red}"), "red", "plain", 1.0),
    (reply("red"), "der", "plain", 0.0),
    ("", "A", "plain", 0.0),
    (r"\boxed{A}", "A", "plain", 0.0),
    (r"</think><answer>\boxed{A}</answer>", "A", "plain", 1.0),
    (reply("A") + reply("A"), "A", "plain", 0.0),  # two answers are none
    (reply("B"), "", "plain", 1.0),  # an answer key that is none makes everything right
    (reply("100"), "104", "chart", 1.0),
    (reply("100"), "105", "chart", 1.0),
    (reply("100"), "106", "chart", 0.0),
    (reply("105"), "100", "chart", 1.0),  # 5% of what was said, so 105 is right for 100
    (reply("106"), "100", "chart", 0.0),
    (reply("95"), "100", "chart", 0.0),  # and 95 is not
    (reply("0.5"), "50", "chart", 0.0),  # 0.5 becomes a fraction, which is no number
    (reply("50"), "0.5", "chart", 1.0),  # a hundredth of it is right, too
    (reply("0"), "0", "chart", 1.0),
    (reply("1"), "0", "chart", 0.0),
    (reply(r"12\%"), "12", "chart", 1.0),
    (reply("12%"), "0.12", "chart", 1.0),
    (reply("red"), "Red", "chart", 1.0),
    (reply("3.4"), "3.5", "chart", 1.0),
    (reply("2.0"), "2.3", "chart", 0.0),
    (reply("2"), "['2', '3']", "chart", 1.0),
    (reply("4"), "['2', '3']", "chart", 0.0),
    (reply("3"), "['2', '3']", "document", 1.0),
    (reply("Pepsi Cola"), "pepsi cola", "document", 1.0),
    (reply("Pepsi"), "Pepsi Cola", "document", 0.5),
    (reply("Coca"), "Pepsi Cola", "document", 0.0),
    (reply("Peps Cola"), "Pepsi Cola", "document", 0.9),
    (reply("2015"), "2016", "document", 1.0),
]


@pytest.mark.parametrize(("said", "answer", "kind", "reward"), OFFICIAL)
def test_official_rewards(said, answer, kind, reward):
    assert reward_of(said, answer, kind) == pytest.approx(reward, rel=1e-9)


@pytest.mark.parametrize(
    ("said", "answer", "kind", "reward"),
    [
        (r"It is \boxed{A}.", "A", "plain", 1.0),  # no form is asked for
        (r"\boxed{B} or rather \boxed{A}", "A", "plain", 1.0),  # the last word counts
        (reply("B"), "", "plain", 0.0),
        (reply("95"), "100", "chart", 1.0),  # 5% of the answer key
        (reply("106"), "100", "chart", 0.0),
        (r"\boxed{\frac{1}{2}}", "0.5", "plain", 1.0),
    ],
)
def test_strict_rewards(said, answer, kind, reward):
    assert reward_of(said, answer, kind, "strict") == reward


PIECES = ("</think>", " ", "<answer>", "</answer>", r"\boxed{", "}", "A", "{", "\n")


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_what_is_boxed_is_what_the_official_pattern_finds(text):
    pattern = re.compile(r"</think>\s*<answer>.*?\\boxed{(.*)}.*?</answer>", re.DOTALL)
    found = pattern.findall(text)
    assert boxed(text) == (found[-1] if found else "")


def test_a_hostile_reply_takes_no_time():
    assert boxed("</think><answer>" + r"\boxed{}" * 20000) == ""


def test_rewards_outside_the_main_thread():
    """math-verify sets signals, which only the main thread may."""
    with ThreadPoolExecutor() as threads:
        assert threads.submit(reward_of, reply(r"\frac{1}{2}"), "0.5").result() == 1.0


def test_the_caption_takes_the_image_s_place():
    prompt = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n<|im_start|>assistant\n"
    )
    told = "Here is a detailed caption of an image: Two. "
    told += "Please answer the question based on the caption.How many?"
    assert turns_of(prompt, "Two") == ("Be brief.", told)
