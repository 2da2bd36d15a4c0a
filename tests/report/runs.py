"""Runs for the page's tests: captions of drawn scenes, judged by the exact oracle."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trl_balcap.advantages import cgdpo_advantages, group_normalize
from trl_balcap.report import RunLog, VerdictWriter
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.oracle import answer
from trl_balcap.scenes.world import Scene, draw, random_scene

REWARDS = ("precision_reward", "recall_reward", "linguistic_reward")


def scene_run(
    folder: Path, *, steps: Sequence[int], images: int = 4, rollouts: int = 4, seed: int = 0
) -> Path:
    """A run whose captioner learns: from many faults at the first step to few at the last."""
    rng = random.Random(seed)
    writer, log = VerdictWriter(folder / "verdicts"), RunLog(folder / "verdicts")
    log.facts(
        {
            "length_gate": [0.5, 2.0],
            "settings": {"learning_rate": 1e-4, "num_generations": rollouts},
            "versions": {"trl-balcap": "0.1.0"},
        }
    )
    for place, step in enumerate(steps):
        faults = _faults(1 - 0.9 * place / max(1, len(steps) - 1))
        rows = []
        for number in range(images):
            scene = random_scene(rng)
            group = f"{step}-{number}"
            rows += [
                judged(faulty_caption(scene, rng, faults), scene)
                | {"step": step, "split": "train", "group": group, "id": f"{group}-{k}"}
                for k in range(rollouts)
            ]
        if place == 0:  # what goes wrong in a real run
            lost = rows[1]
            lost["rewards"]["recall_reward"] = None
            lost["reasons"] = {"recall_reward": "timeout"}
            lost["units"] = None
        _share(rows, rollouts)
        writer.write(rows)
        log.append({"step": step, **_logs(rows)})
    return folder


def score_run(folder: Path, *, faults: float, n: int = 12, seed: int = 1) -> Path:
    """A folder of scores of `n` held-out scenes, the same for the same seed."""
    scenes = [random_scene(rng) for rng in [random.Random(seed)] for _ in range(n)]
    rng = random.Random(f"{faults}")
    writer = VerdictWriter(folder / "verdicts")
    writer.write(
        judged(faulty_caption(scene, rng, _faults(faults)), scene)
        | {"step": 0, "split": "score", "id": f"{place:03}.png"}
        for place, scene in enumerate(scenes)
    )
    return folder


def judged(caption: str, scene: Scene) -> dict[str, Any]:
    """A verdict row without its place in a run."""
    reference = describe(scene)

    def ask(name: str, **keys: Any) -> dict[str, Any]:
        return answer({"question": name, **keys}, scene)

    def numbered(text: str) -> list[dict[str, Any]]:
        texts = ask("decompose", text=text)["assertions"] if text.strip() else []
        return [{"id": place, "text": one} for place, one in enumerate(texts, start=1)]

    said, units = numbered(caption), numbered(reference)
    verdicts = ask("verify", assertions=said)["verdicts"] if said else []
    covered = ask("cover", assertions=said, units=units)["verdicts"] if said else []
    grades = ask("linguistic", text=caption)
    assertions = [
        {"text": one["text"], "correct": v["correct"], "pointable": v["pointable"]}
        for one, v in zip(said, verdicts, strict=True)
    ]
    flags = [bool(v["covered"]) for v in covered] or [False] * len(units)
    right = sum(one["correct"] and one["pointable"] for one in assertions)
    linguistic = (grades["clarity"] + grades["fluency"] + grades["coherency"]) / 30
    words = len(caption.split())
    ratio = words / len(reference.split())
    rewards = (
        right / len(assertions) if assertions else 0.0,
        sum(flags) / len(flags),
        linguistic,
    )
    gated = not 0.5 <= ratio <= 2.0
    return {
        "prompt": "Describe the image in detail.",
        "image": draw(scene),
        "completion": caption,
        "reference": reference,
        "assertions": assertions,
        "units": [
            {"text": unit["text"], "covered": flag} for unit, flag in zip(units, flags, strict=True)
        ],
        **{name: grades[name] for name in ("clarity", "fluency", "coherency")},
        "length_ratio": ratio,
        "gated": gated,
        "rewards": dict(zip(REWARDS, rewards, strict=True)),
        "gated_rewards": {"linguistic_reward": 0.0 if gated else linguistic},
        "tokens": words,
        "latency": 0.8,
        "usd": 0.0004,
    }


def _faults(much: float) -> Faults:
    return Faults(
        wrong=0.35 * much,
        omit=0.25 * much,
        invent=0.3 * much,
        meta=0.3 * much,
        broken=0.25 * much,
        short=0.1 * much,
        long=0.12 * much,
    )


def _share(rows: list[dict[str, Any]], rollouts: int) -> None:
    values = [[_trained(row, name) for name in REWARDS] for row in rows]
    rewards = torch.tensor(values, dtype=torch.float64)  # (B, K)
    advantages = cgdpo_advantages(rewards, num_generations=rollouts)  # (B,)
    shares = group_normalize(rewards, num_generations=rollouts)  # (B, K)
    for row, advantage, share in zip(rows, advantages, shares, strict=True):
        row["advantage"] = advantage.item()
        row["advantage_shares"] = dict(zip(REWARDS, share.nan_to_num().tolist(), strict=True))


def _trained(row: dict[str, Any], name: str) -> float:
    value = row["gated_rewards"].get(name, row["rewards"][name])
    return float("nan") if value is None else value


def _logs(rows: list[dict[str, Any]]) -> dict[str, float]:
    logs: dict[str, float] = {}
    for name in REWARDS:
        values = torch.tensor([v for row in rows if (v := row["rewards"][name]) is not None])
        shares = torch.tensor([row["advantage_shares"][name] for row in rows])
        lost = len(rows) - len(values)
        logs |= {
            f"rewards/{name}/mean": values.mean().item(),
            f"rewards/{name}/std": values.std(correction=0).item(),
            f"rewards/{name}/frac_zero_std": float(values.std(correction=0) == 0),
            f"advantages/{name}/std": shares.std(correction=0).item(),
            f"judge/{name}/unscored": lost / len(rows),
            f"judge/{name}/unscored/timeout": lost / len(rows),
        }
    ratios = torch.tensor([row["length_ratio"] for row in rows])
    return logs | {
        "length_gate/ratio": ratios.mean().item(),
        "length_gate/too_short": (ratios < 0.5).double().mean().item(),
        "length_gate/too_long": (ratios > 2.0).double().mean().item(),
        "entropy": 0.4 + 0.6 * ratios.std(correction=0).item(),
        "completions/mean_length": 40 * ratios.mean().item(),
        "judge/latency_p50": 0.6,
        "judge/latency_p95": 1.1,
    }
