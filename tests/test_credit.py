"""Credit for tokens: which sentence a token is in, what the sentence is worth, and what the trainer
makes of it."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoProcessor

from tests.conftest import scene_dataset
from tests.two_ranks import on_two_ranks
from trl_balcap import BalCapConfig, BalCapTrainer, Judge, LinguisticReward, PrecisionReward
from trl_balcap.credit import (
    batch_values,
    group_means,
    sentence_values,
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
        assert "".join(piece or "" for piece in pieces) == text
        assert pieces[-1] is None  # the end token


def test_a_character_of_several_tokens_is_in_one_sentence():
    """The second sentence begins with a character of three bytes; the first one gets no credit."""
    pieces = pieces_of("A cat.犬。")
    assert pieces[-7:] == ["", "", "犬", "", "", "。", None]
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
    values, known, counts = batch_values(
        TOKENIZER.backend_tokenizer, [ids], [said], length=len(ids) + 2
    )
    pieces = token_pieces(TOKENIZER.backend_tokenizer, ids)
    ends = [i for i, piece in enumerate(pieces) if (piece or "").endswith(".")]
    starts = [0, *(end + 1 for end in ends[:-1])]
    expected = []
    for start, end, value in zip(starts, ends, (0.0, 1.0, -1.0), strict=True):
        inner = [value if (piece or "").strip() else None for piece in pieces[start + 1 : end + 1]]
        expected += [None, *inner]
    expected += [None, None]
    assert known[0].tolist() == [value is not None for value in expected]
    assert values[0].tolist() == [value or 0.0 for value in expected]
    assert counts.tolist() == [
        [4.0, 3.0, 0.0]
    ]  # the last assertion shares no words with a sentence


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
    values, known, _ = batch_values(
        TOKENIZER.backend_tokenizer, [ids, []], [[], []], length=len(ids)
    )
    assert not known.any()
    assert group_means(values.sum(1), known.sum(1), num_generations=2).tolist() == [0.0, 0.0]


class Watching(BalCapTrainer):
    """Keeps what each batch is trained on."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.__dict__.setdefault("batches", []).append(output)
        self.__dict__.setdefault("advantages", []).append(list(self._logs["advantages"])[-8:])
        return output


def trained(out, kind: Any = Watching, **config: Any) -> Any:
    """Two steps of the shipped captioner, whose captions have sentences, by the exact judge."""
    judge = Judge("scenes/oracle")
    settings = {
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"},
        **{"disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "log_verdicts": 0},
        **{"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 48},
        **{"max_steps": 2, "credit": "assertion", "length_gate": None, "seed": 3},
    }
    trainer = kind(
        str(captioner_path()),
        [PrecisionReward(judge), LinguisticReward(judge)],
        BalCapConfig(str(out), **{**settings, **config}),
        train_dataset=scene_dataset(8),
    )
    trainer.train()
    return trainer


def test_the_trainer_adds_half_the_credit_to_each_captions_advantage(tmp_path):
    """What remains of the tokens' advantages is, for each group, credit that adds up to 0; tokens
    without credit, as the first one and the end token, have the advantage of their caption."""
    trainer = trained(tmp_path)
    batch, logged = trainer.batches[0], torch.tensor(trainer.advantages[0])
    mask = batch["completion_mask"].bool()  # (B, T)
    credit = (batch["advantages"] - logged[:, None]) / 0.5  # (B, T)
    torch.testing.assert_close(credit.view(2, -1).sum(1), torch.zeros(2), atol=1e-4, rtol=0)
    assert credit.abs().max() > 0.3
    assert credit.abs().max() <= 2.0
    assert not credit[~mask].any()
    assert credit[:, 0].abs().max() < 1e-6
    ended = batch["completion_ids"] == TOKENIZER.eos_token_id  # (B, T)
    assert ended.any()
    assert credit[ended].abs().max() < 1e-6
    history = [step for step in trainer.state.log_history if "credit/tokens" in step]
    assert len(history) == 2
    assert 0.5 < history[0]["credit/tokens"] < 1.0
    assert history[0]["credit/placed"] > 0.9


@pytest.mark.parametrize("upper", [2.0, 0.011])
def test_a_gated_precision_reward_earns_credit_where_its_gate_is_open(upper, tmp_path):
    """With the lower bound at 0.01 and the upper one at 2 all gates are open, with 0.011 none is:
    the reward itself is not asked then, and no caption has credit."""
    gate = {"length_gate": "mask", "length_gate_lower": 0.01, "length_gate_upper": upper}
    trainer = trained(tmp_path, **gate, length_gated_rewards=["precision_reward"])
    shares = [step["credit/tokens"] for step in trainer.state.log_history if "loss" in step]
    assert len(shares) == 2
    assert all(share > 0.5 if upper == 2.0 else share == 0.0 for share in shares)


def test_broken_bytes_cost_their_caption_the_credit_and_are_counted():
    """A tokenizer that falls back on bytes, as Llama's: a line break, half a character, a word."""
    words = {"<unk>": 0, "\u2581red": 1, "<0x0A>": 2, "<0xF0>": 3, "\u2581A": 4}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    broken, whole = [4, 1, 2, 3, 1], [4, 1, 1, 1, 1]
    said = [{"text": "A red thing.", "correct": True, "pointable": True}]
    values, known, counts = batch_values(backend, [broken, whole], [said, said], length=5)
    assert counts[:, 2].tolist() == [1.0, 0.0]
    assert known.sum(1).tolist() == [0, 4]
    assert values[1].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_repeated_list_numbers_are_no_repeated_claims():
    parts = ["1. ", "A dog.\n", "1. ", "A cat.\n", "A dog."]
    assert sentence_values(parts, [1, 3], [True, True]) == [None, 1.0, None, 1.0, -1.0]


def test_a_special_token_in_a_caption_is_nobodys():
    values = token_values(["A", " dog", None, " runs", "."], ["A dog runs."], [1.0])
    assert values == [None, 1.0, None, 1.0, 1.0]
    assert token_values([None, "A", " dog."], ["A dog."], [1.0]) == [None, None, 1.0]


def test_without_the_setting_advantages_are_those_of_captions(tmp_path):
    trainer = trained(tmp_path, credit="none", max_steps=1)
    assert trainer.batches[0]["advantages"].shape == (8,)
    assert not any("credit/tokens" in step for step in trainer.state.log_history)


LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")


@pytest.mark.parametrize(("level", "kinds"), [("token", LOSSES), ("sequence", ("cispo", "vespo"))])
def test_every_loss_reads_advantages_of_tokens_as_it_reads_those_of_captions(
    level, kinds, tmp_path
):
    """Also those that look at an advantage's sign: the same number for each token of a caption is
    the caption's advantage."""
    losses: dict[str, list[tuple[float, float]]] = {}

    class Twice(BalCapTrainer):
        def _compute_loss(self, model, inputs):
            captions = inputs["advantages"][:, 0]  # a first token has no credit
            tokens = captions[:, None].expand_as(inputs["completion_mask"])
            # As if an older policy had sampled: ratios on both sides of 1, beyond the clipping.
            shift = torch.linspace(-0.6, 0.6, tokens.shape[1])
            old = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                tokens.shape[1],
                pixel_values=inputs["pixel_values"],
                image_grid_thw=inputs["image_grid_thw"],
                num_images=inputs["num_images"],
                mm_token_type_ids=inputs["mm_token_type_ids"],
            )[0].detach()
            for kind in kinds:
                for threshold in (None, 0.05):
                    self.loss_type, self.off_policy_mask_threshold = kind, threshold
                    both = [
                        super(Twice, self)._compute_loss(
                            model,
                            {**inputs, "advantages": given, "old_per_token_logps": old + shift},
                        )
                        for given in (captions, tokens)
                    ]
                    losses.setdefault(kind, []).append((both[0].item(), both[1].item()))
            self.loss_type, self.off_policy_mask_threshold = kinds[0], None
            return super()._compute_loss(model, inputs)

    config = {"importance_sampling_level": level, "loss_type": kinds[0]}
    trained(tmp_path, Twice, max_steps=1, **config)
    assert len(losses) == len(kinds)
    for kind, pairs in losses.items():
        for of_captions, of_tokens in pairs:
            assert of_tokens == pytest.approx(of_captions, rel=1e-5, abs=1e-7), kind


@pytest.mark.slow
def test_on_two_ranks_a_groups_mean_is_that_of_both(tmp_path):
    """Each group of 4 is split over two ranks: its credit adds up to 0 over both, not on each."""
    on_two_ranks("ddp", "credit", tmp_path)
    sums = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]  # of one group each
    assert sums[0].abs() > 0.1
    torch.testing.assert_close(sums[0] + sums[1], torch.tensor(0.0), atol=1e-3, rtol=0)
