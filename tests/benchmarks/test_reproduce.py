"""The reproduction on scenes: its generation, its measures, its rule, its files."""

import asyncio
import doctest
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from benchmarks import reproduce
from benchmarks.reproduction import (
    arms,
    balanced,
    claims,
    field,
    measure,
    report,
    sampling,
    train,
    variants,
)
from benchmarks.reproduction import credit as credit_of_tokens
from trl_balcap import FeedQuillReward, GroupReward, Judge, RubricReward, UtilityReward
from trl_balcap.scenes.answers import asked_about
from trl_balcap.scenes.captioner import PROMPT, captioner_path
from trl_balcap.scenes.grammar import describe, faulty_caption
from trl_balcap.scenes.parsing import parse_caption
from trl_balcap.scenes.world import Scene, Thing, draw

ROOT = Path(__file__).resolve().parents[2]
STAR = Scene((Thing("red", "star", "large", "top", "left"),))
TINY = train.Settings(
    steps=2, prompts_per_step=2, num_generations=4, max_completion_length=12, test_scenes=4
)


def prompts(path, scenes):
    processor = AutoProcessor.from_pretrained(path)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(
        text=[text] * len(scenes),
        images=[[draw(scene)] for scene in scenes],
        padding=True,
        return_mm_token_type_ids=True,
        return_tensors="pt",
    )


@pytest.fixture(scope="module")
def captioner(tiny_qwen):
    return AutoModelForImageTextToText.from_pretrained(tiny_qwen, dtype=torch.float32).eval()


# ---- generation ----------------------------------------------------------------------------------


def test_fast_sampler_is_generate_token_by_token(captioner, tiny_qwen):
    scenes = [row.scene for row in measure.held_out(3)]
    inputs = prompts(tiny_qwen, [scenes[0], scenes[0], scenes[1], scenes[2]])
    theirs = captioner.generate(**inputs, do_sample=False, max_new_tokens=24)
    ours = sampling.FastSampler(captioner)(**inputs, do_sample=False, max_new_tokens=24)
    assert ours.tolist() == theirs.tolist()


def test_fast_sampler_drops_rows_that_ended_and_pads_behind_them():
    path = captioner_path()  # its captions end at different times, those of random weights never
    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    inputs = prompts(path, [row.scene for row in measure.held_out(8)])
    start = inputs["input_ids"].shape[1]
    theirs = model.generate(**inputs, do_sample=False, max_new_tokens=96)
    ours = sampling.FastSampler(model)(**inputs, do_sample=False, max_new_tokens=96)
    assert ours.tolist() == theirs.tolist()
    lengths = (ours[:, start:] != model.generation_config.pad_token_id).sum(dim=1)
    assert len(lengths.unique()) > 3


def test_fast_sampler_draws_from_the_models_distribution(captioner, tiny_qwen):
    """2000 draws of the first token against the softmax of the model's own logits."""
    config = captioner.generation_config
    with torch.no_grad():
        logits = captioner(**prompts(tiny_qwen, [STAR])).logits[0, -1]
    logits[config.suppress_tokens] = -torch.inf
    # A model of random weights is sure of nothing; cooled down, its first choice has about a third.
    coolings = (1 / 2**halvings for halvings in range(12))
    temperature = next(t for t in coolings if (logits / t).softmax(-1).max() > 0.3)
    expected = (logits / temperature).softmax(-1)
    cold = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        max_new_tokens=1,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    inputs = prompts(tiny_qwen, [STAR] * 100)
    torch.manual_seed(0)
    sampler = sampling.FastSampler(captioner)
    drawn = torch.cat([sampler(**inputs, generation_config=cold)[:, -1] for _ in range(20)])
    seen = torch.bincount(drawn, minlength=len(expected)) / len(drawn)
    torch.testing.assert_close(seen, expected, atol=0.04, rtol=0)
    assert not set(drawn.tolist()) & set(config.suppress_tokens)


def test_fast_sampler_refuses_what_it_would_get_wrong(captioner, tiny_qwen):
    inputs = prompts(tiny_qwen, [STAR])
    inputs["attention_mask"][0, 0] = 0
    with pytest.raises(ValueError, match="one length"):
        sampling.FastSampler(captioner)(**inputs, do_sample=False)


def test_shared_images_change_neither_features_nor_gradients(tiny_qwen):
    scenes = [row.scene for row in measure.held_out(2)]
    inputs = prompts(tiny_qwen, [scenes[0], scenes[1], scenes[0], scenes[0]])
    gradients = {}
    for shared in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(tiny_qwen, dtype=torch.float32)
        if shared:
            sampling.share_images(model)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients[shared] = model.model.visual.patch_embed.proj.weight.grad
    assert gradients[False].abs().max() > 0
    torch.testing.assert_close(gradients[True], gradients[False], rtol=1e-4, atol=1e-7)


# ---- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        pytest.param("The top left shows a large red star.", 1 + 1 + 1 + 1 + 1, id="all but count"),
        pytest.param("The top left shows a large blue star.", 0 + 1 + 1 + 1 + 1, id="wrong colour"),
        pytest.param(
            "The top left shows a large red star. The top left shows a large blue star.",
            1 + 1 + 1 + 1 + 1,
            id="of two answers the first",
        ),
        pytest.param(
            "The top left shows a blue star. The top left shows a large red star. "
            "The top left shows a red star.",
            1 + 1 + 1 + 1 + 1,
            id="of three answers the most frequent",
        ),
    ],
)
def test_questions_are_answered_from_the_caption_alone(caption, right):
    # Six questions: count (5 choices), colour, shape, size, there? yes, there? no.
    cannot_count = 1 / 5 + 0.05
    assert measure.qa_score(parse_caption(caption), STAR) == pytest.approx(
        (right + cannot_count) / 6
    )


def test_saying_nothing_scores_as_captionqa_scores_it():
    # 1/K + 0.05 for count, colour, shape, size; "there?" is yes or no: wrong once, right once.
    abstained = 1 / 5 + 1 / 6 + 1 / 4 + 1 / 2 + 4 * 0.05
    assert measure.qa_score([], STAR) == pytest.approx((abstained + 0 + 1) / 6)


def test_the_arena_ranks_perfect_above_hedging_above_nothing():
    rows = measure.held_out(24)
    perfect = [row.reference for row in rows]
    hedged = [f"{text} The middle centre shows a small black star." for text in perfect]
    scores = [measure.arena_score(texts, rows) for texts in (perfect, hedged, [""] * len(rows))]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 30 > -30 > scores[2]
    assert scores[1] < scores[0] - 20


def test_measures_of_planted_faults():
    rows = measure.held_out(8)
    words = lambda text: len(text.split())  # noqa: E731
    meta = measure.measure([f"{row.reference} The mood is cosy." for row in rows], rows, words)
    sentences = sum(len(row.scene.things) + 2 for row in rows)  # count, things, commentary
    assert meta["meta"] == pytest.approx(8 / sentences)
    assert (meta["recall"], meta["qa"]) == (1.0, 1.0)
    assert meta["precision"] < 1.0
    twice = measure.measure([f"{row.reference} {row.reference}" for row in rows], rows, words)
    assert (twice["repetition"], twice["length_ratio"], twice["too_long"]) == (0.5, 2.0, 0.0)
    assert twice["precision"] == 1.0  # saying it twice is no second assertion


# ---- the rule ------------------------------------------------------------------------------------


def results_of(values):
    """arm -> values over seeds, as b-CapScores, sampled and greedy alike."""
    return {
        arm: {
            seed: {"measures": {kind: {"b_capscore": value} for kind in ("sampled", "greedy")}}
            for seed, value in enumerate(scores)
        }
        for arm, scores in values.items()
    }


@pytest.mark.parametrize(
    ("more", "less", "expected"),
    [
        ([0.80, 0.82, 0.81], [0.70, 0.71, 0.70], "yes"),
        ([0.70, 0.71, 0.70], [0.80, 0.82, 0.81], "no"),
        # On average higher by 0.1, and all over the place.
        ([0.9, 0.6, 0.8], [0.6, 0.7, 0.7], "undecided"),
        # The same to within 0.001: an effect of relevant size is excluded.
        ([0.800, 0.801, 0.799], [0.8, 0.8, 0.8], "no"),
        # Plain, but two seeds only.
        ([0.80, 0.82], [0.70, 0.71], "undecided"),
        ([], [0.7, 0.7, 0.7], "undecided"),
    ],
)
def test_answers(more, less, expected):
    results = results_of({"full": more, "vanilla": less})
    part = claims.Part("b_capscore", "full", "vanilla")
    found = claims.difference(part, results, "sampled")
    assert claims.answer(found, claims.margin("b_capscore")) == expected


def test_seeds_are_compared_pair_by_pair():
    """Seeds differ widely, the arms by 0.02 in each of them; a seed that one arm lacks is left
    out."""
    results = results_of({"full": [0.52, 0.72, 0.92], "vanilla": [0.5, 0.7, 0.9, 0.1]})
    found = claims.difference(claims.Part("b_capscore", "full", "vanilla"), results, "greedy")
    assert found.n == 3
    assert found.mean == pytest.approx(0.02)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-9)


def test_a_claim_is_as_good_as_its_weakest_part():
    claim = next(claim for claim in claims.CLAIMS if claim.number == "4")
    results = results_of(
        {"base": [0.5, 0.5, 0.51], "no_recall": [0.6, 0.61, 0.6], "full": [0.6, 0.61, 0.6]}
    )
    assert claims.judge(claim, results, "sampled") == "no"  # above the base, not below the full
    results |= results_of({"full": [0.8, 0.81, 0.8]})
    assert claims.judge(claim, results, "sampled") == "yes"


def test_every_claim_speaks_of_arms_and_measures_that_exist():
    for claim in claims.CLAIMS:
        for part in claim.parts + claim.beside:
            assert {part.more, part.less} <= set(arms.ARMS)
            assert part.measure in measure.MEASURES


# ---- arms ----------------------------------------------------------------------------------------


def ask(arm, **changes) -> Any:
    """What an arm's three rewards say about four captions of a red star."""
    rewards = balanced.balanced_rewards(arms.ARMS[arm], 0, [STAR])
    reference = "There is one thing. The top left shows a large red star."
    captions = [
        reference,
        "The top left shows a large red star. The mood is cosy. The scene feels calm.",
        "There is one thing.",
        "",
    ]

    class State:
        global_step = changes.get("step", 0)

    kwargs = {
        "completions": [[{"role": "assistant", "content": caption}] for caption in captions],
        "reference": [reference] * 4,
        "row": [0] * 4,
        "trainer_state": State(),
    }
    return [reward(**kwargs) for reward in rewards]


def test_rewards_of_the_full_method_and_without_pointability():
    precision, recall, linguistic = ask("full")
    assert precision == pytest.approx([1.0, 1 / 3, 1.0, 0.0])
    assert recall == pytest.approx([1.0, 0.5, 0.5, 0.0])
    assert linguistic == [1.0, 1.0, 1.0, 0.0]  # commentary reads well
    assert ask("no_pointability")[0] == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_skewed_rewards_are_the_same_rewards_in_other_units():
    for scaled, plain, factor in zip(ask("full_skewed"), ask("full"), (0.2, 1.0, 2.0), strict=True):
        assert scaled == pytest.approx([factor * value for value in plain])


def test_failures_are_missing_or_zero_for_the_same_completions():
    missing, zeros, plain = ask("none_30"), ask("zero_30"), ask("full")
    flat = [
        (a, b, c)
        for rows in zip(missing, zeros, plain, strict=True)
        for a, b, c in zip(*rows, strict=True)
    ]
    assert any(a is None for a, _, _ in flat)
    assert all(b == (0.0 if a is None else c) for a, b, c in flat)


def test_a_noisy_judge_errs_anew_each_step_and_about_equal_captions():
    assert ask("noise_large") != ask("noise_large", step=1)
    assert ask("noise_large") == ask("noise_large")


def test_noise_of_one_kind_leaves_the_other_verdicts_alone():
    plain = ask("full")
    for name, spoilt in (("covered", 1), ("grades", 2)):
        noisy = [ask(f"noise_{name}_large", step=step) for step in range(20)]
        others = [k for k in range(3) if k != spoilt]
        assert all(one[k] == plain[k] for one in noisy for k in others)
        assert any(one[spoilt] != plain[spoilt] for one in noisy)


@pytest.mark.parametrize(
    "name",
    ["vanilla", "one_step_off", "noise_large", "agreed_base", "credit", *variants.VARIANTS],
)
def test_an_arm_trains_and_is_measured(name, tiny_qwen):
    result = train.train_arm(arms.ARMS[name], 0, TINY, tiny_qwen)
    assert len(result["steps"]) == TINY.steps
    assert set(result["measures"]["sampled"]) == set(measure.MEASURES)
    assert all(math.isfinite(value) for step in result["steps"] for value in step.values())
    json.dumps(result)


def test_credit_of_tokens_changes_what_is_learned_and_none_leaves_it():
    """Next to no weight in shape (B, T) is the full method; 1/2 is not."""
    full, credit = (replace(arms.ARMS[name], rate=20.0) for name in ("full", "credit"))
    room = replace(TINY, steps=3, max_completion_length=40)  # the first step has rate 0
    plain = train.train_arm(full, 3, room, captioner_path())
    same = train.train_arm(replace(credit, credit=1e-9), 3, room, captioner_path())
    other = train.train_arm(credit, 3, room, captioner_path())
    assert reproduce.rounded(same["steps"]) == reproduce.rounded(plain["steps"])
    assert other["steps"][0] == plain["steps"][0]  # before the first update
    assert other["steps"][2] != plain["steps"][2]


def test_a_look_on_the_way_changes_nothing(monkeypatch):
    monkeypatch.setattr(train, "HORIZONS", (1, 2))
    looked = train.train_arm(arms.ARMS["full"], 3, TINY, captioner_path())
    assert list(looked["on_the_way"]) == [1]
    assert 0 < looked["on_the_way"][1]["greedy"]["length"] <= TINY.max_completion_length
    monkeypatch.setattr(train, "HORIZONS", ())
    plain = train.train_arm(arms.ARMS["full"], 3, TINY, captioner_path())
    assert (looked["steps"], looked["measures"]) == (plain["steps"], plain["measures"])


@pytest.mark.parametrize("module", [variants, credit_of_tokens])
def test_examples_of_the_advantages_that_were_tried(module):
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted > 2
    assert found.failed == 0


def test_sft_then_rl_and_sft_alone(tiny_qwen):
    both, alone = (
        train.train_arm(arms.ARMS[name], 0, TINY, tiny_qwen) for name in ("sft_full", "sft")
    )
    assert (len(both["steps"]), len(alone["steps"])) == (TINY.steps, 0)
    assert set(alone["measures"]["sampled"]) == set(measure.MEASURES)


def test_an_arm_by_one_reward_trains(tiny_qwen):
    result = train.train_arm(arms.ARMS["group"], 0, TINY, tiny_qwen)
    # Whoever wins, a group's scores are half on average.
    assert [step["group/mean"] for step in result["steps"]] == pytest.approx([0.5] * TINY.steps)


FIELD_CAPTIONS = [
    describe(STAR),
    f"{describe(STAR)} The mood is cosy.",
    "The top left shows a thing.",
    "The top right shows a small blue circle.",
]


@pytest.mark.parametrize("name", field.FIELD)
def test_rewards_of_the_field_are_those_of_the_classes(name):
    judge = Judge("scenes/oracle")
    reward = {
        "feedquill": FeedQuillReward(judge, full_count=field.FULL_COUNT),
        "utility": UtilityReward(judge),
        "rubric": RubricReward(judge),
        "group": GroupReward(judge),
    }[name]
    dice = random.Random(repr(STAR))
    columns = {
        "image": draw(STAR),
        "questions": [
            {**one, "answer": one["choices"][one["answer"] - 1]} for one in asked_about(STAR, 9)
        ],
        "references": [faulty_caption(STAR, dice, faults) for faults in field.COMMITTEE],
    }
    given: dict[str, Any] = {key: [value] * 4 for key, value in columns.items()}
    asked = asyncio.run(reward(prompts=[""] * 4, completions=FIELD_CAPTIONS, **given))

    [plain] = field.field_rewards(name, [STAR])
    completions = [[{"role": "assistant", "content": text}] for text in FIELD_CAPTIONS]
    assert plain(completions=completions, row=[0] * 4) == pytest.approx(asked)
    assert len(set(asked)) > 1


def test_same_seed_same_result(tiny_qwen):
    one, other = (train.train_arm(arms.ARMS["full"], 3, TINY, tiny_qwen) for _ in range(2))
    assert one["steps"] == other["steps"]
    assert one["measures"] == other["measures"]


# ---- the runner ----------------------------------------------------------------------------------


def test_results_of_other_settings_do_not_count(tmp_path):
    settings = {"steps": 2, "base": "abc"}
    result = {"arm": "full", "seed": 0, "settings": settings}
    file = tmp_path / "runs.jsonl"
    reproduce.write_result(file, result)
    assert reproduce.is_done(file, "full", 0, settings)
    assert not reproduce.is_done(file, "full", 0, settings | {"steps": 3})
    assert not reproduce.is_done(file, "full", 1, settings)


def test_a_torn_line_is_a_run_to_make_again(tmp_path):
    file, settings = tmp_path / "runs.jsonl", {"steps": 2}
    reproduce.write_result(file, {"arm": "full", "seed": 0, "settings": settings})
    file.write_text(file.read_text() + '{"arm": "full", "seed": 1, "set')  # killed while writing
    assert not reproduce.is_done(file, "full", 1, settings)
    reproduce.write_result(file, {"arm": "full", "seed": 1, "settings": settings})
    assert reproduce.is_done(file, "full", 0, settings)
    assert reproduce.is_done(file, "full", 1, settings)


def test_full_order_is_claims_first_then_seeds():
    args = reproduce._parse(["--full"])
    jobs = reproduce.planned(args)
    assert len(jobs) == 5 * len(arms.ARMS) == len(set(jobs))
    assert [name for name, seed in jobs[: len(arms.TIERS[0])]] == list(arms.TIERS[0])
    assert {seed for _, seed in jobs[: len(arms.TIERS[0])]} == {0}


def test_longer_runs_get_tables_of_their_own(tmp_path):
    """Two seeds of 120 steps, looked at after 40: +0.1 there, +0.2 at the end."""
    file = tmp_path / "runs.jsonl"
    for seed in (0, 1):
        for name, early, late in (("full", 0.5, 0.6), ("credit", 0.6, 0.8)):
            measures = [
                {"sampled": {"b_capscore": v}, "greedy": {"b_capscore": v}} for v in (early, late)
            ]
            run = {"arm": name, "seed": seed, "settings": {"steps": 120}}
            looks = {"on_the_way": {40: measures[0]}, "measures": measures[1]}
            reproduce.write_result(file, {**run, **looks})
    horizons = report.read_horizons(file)
    assert list(horizons) == [40, 120]
    row = report._better_table(horizons).splitlines()[-1]
    assert "| greedy | +0.100 [+0.100, +0.100] | +0.200 [+0.200, +0.200] | 2 |" in row


def test_page_of_no_results_and_of_some(tmp_path, tiny_qwen):
    file = tmp_path / "runs.jsonl"
    assert "No results" in report.write_page(file, tmp_path).read_text()
    for name in ("base", "full", "vanilla"):
        result = train.train_arm(arms.ARMS[name], 0, TINY, tiny_qwen)
        reproduce.write_result(file, {**result, "commit": "c", "hardware": "h"})
    page = report.write_page(file, tmp_path).read_text()
    assert "**Not complete.**" in page
    for picture in ("advantage-maps", "reward-curves", "length", "views", "claims"):
        assert f"reproduction/{picture}.png" in page
        assert (tmp_path / "reproduction" / f"{picture}.png").stat().st_size < 150_000


@pytest.mark.slow
def test_killed_runner_goes_on_where_it_stopped(tmp_path, tiny_qwen):
    """SIGKILL after the first result: the second run trains what is missing, and nothing again."""
    file = tmp_path / "runs.jsonl"
    command = [
        sys.executable,
        *("-m", "benchmarks.reproduce"),
        *("--arms", "base", "full", "vanilla", "--seeds", "1", "--steps", "3"),
        *("--processes", "1", "--base", str(tiny_qwen), "--results", str(file)),
    ]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = file.read_text()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert second.returncode == 0, second.stderr[-2000:]
    assert file.read_text().startswith(before)
    arms_run = [run["arm"] for run in report.read_runs(file)]
    assert sorted(arms_run) == ["base", "full", "vanilla"]
    assert (tmp_path / "reproduction.md").exists()
