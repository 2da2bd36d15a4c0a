"""Credit for tokens: which sentence a token is in, and what the sentence is worth."""

import torch
from transformers import AutoProcessor

from benchmarks.reproduction.tokens import (
    batch_values,
    group_means,
    token_credit,
    token_pieces,
    token_values,
)
from trl_balcap.scenes.captioner import captioner_path

TOKENIZER = AutoProcessor.from_pretrained(captioner_path()).tokenizer


def pieces_of(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return token_pieces(TOKENIZER.backend_tokenizer, [*ids, TOKENIZER.eos_token_id])


def test_pieces_of_a_byte_level_tokenizer_are_the_text_again():
    for text in ("Zwei Bären.  Ein 🐈!\n", "猫がいる。犬もいる。", "A cat."):
        pieces = pieces_of(text)
        assert "".join(pieces) == text
        assert pieces[-1] == ""  # the end token


def test_a_character_of_several_tokens_is_in_one_sentence():
    """The second sentence begins with a character of three bytes; the first one gets no credit."""
    pieces = pieces_of("A cat.犬。")
    assert pieces[-7:] == ["", "", "犬", "", "", "。", ""]
    values = token_values(pieces, ["A cat.", "犬。"], [1.0, -1.0])
    assert values[-7:] == [None, -1.0, -1.0, -1.0, -1.0, -1.0, None]


def test_what_the_judge_says_reaches_the_tokens_of_its_sentence():
    """The judge split the first sentence in two, one of them wrong; praised the second; could not
    be placed with its last assertion; and the third repeats the first."""
    text = "There is a red circle. The mood is cosy. There is a red circle."
    said = [
        {"text": "There is a circle.", "correct": True, "pointable": True},
        {"text": "The circle is red.", "correct": False, "pointable": True},
        {"text": "The mood is cosy.", "correct": True, "pointable": True},
        {"text": "All seems still.", "correct": True, "pointable": False},
    ]
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    values, known = batch_values(TOKENIZER.backend_tokenizer, [ids], [said], length=len(ids) + 2)
    pieces = token_pieces(TOKENIZER.backend_tokenizer, ids)
    ends = [i for i, piece in enumerate(pieces) if piece.endswith(".")]
    starts = [0, *(end + 1 for end in ends[:-1])]
    expected = []
    for start, end, value in zip(starts, ends, (0.0, 1.0, -1.0), strict=True):
        inner = [value if piece.strip() else None for piece in pieces[start + 1 : end + 1]]
        expected += [None, *inner]
    expected += [None, None]
    assert known[0].tolist() == [value is not None for value in expected]
    assert values[0].tolist() == [value or 0.0 for value in expected]


def test_credit_adds_up_to_nothing_over_a_group():
    torch.manual_seed(0)
    values, known = torch.randn(6, 9), torch.rand(6, 9) > 0.4  # two groups of three
    values = values * known
    means = group_means(values.sum(1), known.sum(1), num_generations=3)
    credit = token_credit(values, known, means)
    torch.testing.assert_close(credit.view(2, -1).sum(1), torch.zeros(2), atol=1e-5, rtol=0)
    assert not credit[~known].any()


def test_a_caption_without_assertions_gets_no_credit():
    ids = TOKENIZER("There is a red circle.", add_special_tokens=False)["input_ids"]
    values, known = batch_values(TOKENIZER.backend_tokenizer, [ids, []], [[], []], length=len(ids))
    assert not known.any()
    assert group_means(values.sum(1), known.sum(1), num_generations=2).tolist() == [0.0, 0.0]
