"""Verdict rows of a batch of rollouts."""

from PIL import Image

from trl_balcap.report import VerdictWriter, read_verdicts, rollout_rows

ASSERTIONS = [{"text": "There is a dog.", "correct": True, "pointable": True}]
DESCRIBE = {"type": "text", "text": "Describe."}
IMAGES = [Image.new("RGB", (84, 84), colour) for colour in ("red", "red", "blue", "blue")]


def batch(**changes):
    given = {
        "step": 7,
        "split": "train",
        "num_generations": 2,
        "completions": [[{"role": "assistant", "content": f"Caption {k}."}] for k in range(4)],
        "prompts": [[{"role": "user", "content": [{"type": "image"}, DESCRIBE]}]] * 4,
        "images": [[image] for image in IMAGES],
        "references": ["A dog."] * 4,
        "tokens": [3] * 4,
        "rewards": {
            "precision_reward": [1.0, 0.5, None, 0.0],
            "linguistic_reward": [0.9, 0.0, 0.8, 0.8],
        },
        "observations": {
            "precision_reward": [
                {"reward": 1.0, "assertions": ASSERTIONS},
                {"reward": 0.5, "assertions": ASSERTIONS, "looked_for": "dogs", "latency": 1.5},
                {"reason": "timeout", "latency": 60.0},
                {"reward": 0.0, "assertions": []},
            ],
            "linguistic_reward": [
                {"reward": 0.9, "clarity": 9, "gated": False, "length_ratio": 1.0},
                {"reason": "length_gate", "gated": True, "length_ratio": 3.0},
                {"reward": 0.8, "gated": False, "length_ratio": 1.0, "latency": 2.0},
                {"reward": 0.8, "gated": False, "length_ratio": 1.0},
            ],
        },
        "advantages": [1.0, -1.0, 0.0, 0.0],
        "advantage_shares": {"precision_reward": [0.7, -0.7, 0.0, 0.0]},
    }
    return rollout_rows(**given | changes)


def test_rollouts_of_a_prompt_stand_together():
    rows = batch()
    assert [(row["group"], row["id"]) for row in rows] == [
        ("0", "0-0"),
        ("0", "0-1"),
        ("1", "1-0"),
        ("1", "1-1"),
    ]
    assert [row["id"] for row in batch(first=4)] == ["2-0", "2-1", "3-0", "3-1"]


def test_a_captions_latency_is_that_of_its_last_verdict():
    assert [row.get("latency") for row in batch()] == [None, 1.5, 60.0, None]


def test_a_captions_cost_is_that_of_all_its_rewards():
    seen = {
        "precision_reward": [{"usd": 0.25}, {"usd": None}, {"usd": 0.5}, {}],
        "linguistic_reward": [{"usd": 0.5}, {"usd": 0.25}, {}, {}],
    }
    rows = batch(observations=seen)
    assert [row.get("usd") for row in rows] == [0.75, None, 0.5, None]


def test_what_the_rewards_saw_becomes_one_row():
    row = batch()[1]
    assert row["assertions"] == ASSERTIONS
    assert row["length_ratio"] == 3.0
    assert row["gated"] is True
    assert row["rewards"] == {"precision_reward": 0.5, "linguistic_reward": None}
    assert row["gated_rewards"] == {"linguistic_reward": 0.0}
    assert row["reasons"] == {"linguistic_reward": "length_gate"}
    assert row["extra"] == {"looked_for": "dogs"}
    assert row["advantage_shares"] == {"precision_reward": -0.7}


def test_a_failed_judge_leaves_its_reason():
    row = batch()[2]
    assert (row["rewards"]["precision_reward"], row["reasons"]) == (
        None,
        {"precision_reward": "timeout"},
    )


def test_what_does_not_fit_one_column_leaves_the_rest():
    odd = {
        "reward": "good",
        "reason": 3,
        "latency": "fast",
        "usd": 0.5,
        "gated": True,
        "fluency": 8,
    }
    row = batch(
        observations={"linguistic_reward": [odd] * 4, "recall_reward": []},
        references=["A dog.", None, ["A dog.", "A pet."], 3],
        rewards={"linguistic_reward": [1.0] * 4},
    )[2]
    assert row["rewards"] == {"linguistic_reward": None}
    assert row["gated_rewards"] == {"linguistic_reward": 1.0}
    assert (row["reasons"], row["usd"], row["fluency"]) == ({}, 0.5, 8.0)
    assert row["reference"] is None
    assert row["extra"] == {
        "reference": ["A dog.", "A pet."], "reward": "good", "reason": 3, "latency": "fast",
    }  # fmt: skip


def test_a_reward_that_tells_nothing_has_its_number():
    rows = batch(rewards={"brevity": [1.0, 0.0, None, 0.5]}, observations={})
    assert [row["rewards"]["brevity"] for row in rows] == [1.0, 0.0, None, 0.5]


def test_the_rows_can_be_kept(tmp_path):
    VerdictWriter(tmp_path).write(batch())
    rows = read_verdicts(tmp_path)
    assert [row["completion"] for row in rows] == [f"Caption {k}." for k in range(4)]
    assert rows[0]["image"] == rows[1]["image"] != rows[2]["image"]
    assert rows[0]["prompt"] == "Describe."
