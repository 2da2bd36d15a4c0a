"""Sentences and the assertions that came from them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.align import align, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("A dog.", ["A dog."]),
        ("A dog. A cat.", ["A dog. ", "A cat."]),
        ('He said "stop." Then he left.', ['He said "stop." ', "Then he left."]),
        ("A dog at 1.5 m", ["A dog at 1.5 m"]),
        ("- a dog\n- a cat\n", ["- a dog\n", "- a cat\n"]),
        ("一只狗。天空是蓝色的。", ["一只狗。", "天空是蓝色的。"]),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


@given(st.text())
def test_sentences_are_the_text(text):
    assert "".join(sentences(text)) == text
    assert all(sentences(text))


@pytest.mark.parametrize(
    ("assertion", "expected"),
    [
        pytest.param("There is a red circle.", 0, id="own_words"),
        pytest.param("The circles are red.", 0, id="another_ending"),
        # "blue" is in one sentence of three, "circle" in two, so that "blue" decides.
        pytest.param("The circle is blue.", 1, id="rare_words_weigh_more"),
        pytest.param("The composition is harmonious.", None, id="nobody_says_so"),
        pytest.param("", None, id="nothing"),
        pytest.param("\u200b\u202e", None, id="marks_alone"),
    ],
)
def test_an_assertion_belongs_to_the_sentence_that_shares_its_words(assertion, expected):
    parts = sentences("A red circle is on the left. A circle that is blue. The floor is grey.")
    assert align([assertion], parts) == [expected]


def test_scripts_without_spaces_are_compared_letter_by_letter():
    assert align(["天空是蓝色"], sentences("一只狗在跑。天空是蓝色的。")) == [1]


def test_no_sentence_no_match():
    assert align(["There is a dog."], []) == [None]


def test_a_flood_of_text_is_aligned_in_no_time():
    text = "word. " * 5000
    start = time.perf_counter()
    align(["A word."] * 50, sentences(text + "\u200b" * 10_000))
    assert time.perf_counter() - start < 2.0
