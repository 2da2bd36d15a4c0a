"""How much a judge adds to a training step in TRL's order, looking ahead, and one step off.

    python -m benchmarks.lookahead

A small captioner with random weights trains on 64 captions of 32 tokens per update, in 4 generation
batches of 16 or one of 64. It is larger than the shipped one, so that the CPU time of judging does
not hide everything else.
The judge is the exact one behind HTTP, in its own process on another core. Its latency is chosen so
that in TRL's order judging takes half, one and two times the rest of the step (a batch is judged in
two round trips). In one run, every arm trains a few steps in turn, over several rounds, so that a
slowdown of the machine affects all arms. The first and last step of each turn are left out: one
step off, the first is on-policy and the last generates nothing.

Judging also takes CPU. `client` is the CPU time it takes in the trainer's process, which the
trainer shares; `server` is the judge's own, on the other core. Goals: look-ahead in 4 batches at
most 1.1 x free rewards plus the client's CPU; one step off at most 1.05 x when judging is shorter
than the rest; BalCapTrainer with free rewards at most 1.02 x GRPOTrainer (`benchmarks.overhead`
measures this step by step).
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.overhead import REWARDS
from benchmarks.results_file import write_results
from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    LinguisticReward,
    PrecisionReward,
    RecallReward,
)
from trl_balcap.demo import demo_scenes
from trl_balcap.scenes.captioner import build_qwen
from trl_balcap.scenes.server import ServerHandle, serve

BATCHES = 4  # generation batches per update, when there is more than one
CAPTIONS = 64  # per update
ROUND_TRIPS = 2  # per batch: decompose, then verify and cover
SHARES = (0.5, 1.0, 2.0)  # time of judging in TRL's order over that of the rest of the step
GOALS = {"look-ahead": 1.1, "one step off": 1.05, "BalCapTrainer": 1.02}


@dataclass
class Arm:
    """One row of the table: how the arm trains, and what was measured."""

    name: str  # "GRPOTrainer", "free rewards", "TRL's order", "look-ahead" or "one step off"
    batches: int  # generation batches per update
    share: float | None = None  # judging time, one of SHARES; None: rewards that cost nothing
    seconds: list[float] = field(default_factory=list)  # per step
    cpu: list[float] = field(default_factory=list)  # of the trainer's process, per step
    server: list[float] = field(default_factory=list)  # the judge's CPU per step, by turn


class StepTimes(TrainerCallback):
    """The time from the end of one step to the end of the next, except for the first and last."""

    def __init__(self, arm: Arm):
        self.arm = arm
        self.turn = -1

    def on_train_begin(self, args, state, control, **kwargs):
        self.turn += 1
        self.ends: list[tuple[float, float]] = []

    def on_step_begin(self, args, state, control, **kwargs):
        torch.manual_seed(1000 * self.turn + state.global_step)  # the same captions for all arms

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, args, state, control, **kwargs):
        for before, after in zip(self.ends, self.ends[1:-1], strict=False):
            self.arm.seconds.append(after[0] - before[0])
            self.arm.cpu.append(after[1] - before[1])


def trainer_of(arm: Arm, server: ServerHandle | None, train: Any, steps: int, out: Path) -> Any:
    """A trainer of the captioner in `out / "captioner"`."""
    rewards: list[Any] = list(REWARDS)
    if server is not None:
        judge = Judge("openai/oracle", api_base=server.url, api_key="none", max_concurrency=256)
        rewards = [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]
    ours = arm.name != "GRPOTrainer"
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "multi_objective_aggregation": "normalize_then_sum",
        "max_steps": steps + 2,
        "per_device_train_batch_size": CAPTIONS // BATCHES,
        "gradient_accumulation_steps": BATCHES,
        "steps_per_generation": BATCHES // arm.batches,
        "num_generations": 8,
        "max_completion_length": 32,
        "learning_rate": 0.0,  # the captioner does not change, so that steps are comparable
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1000,
        "model_init_kwargs": {"dtype": "float32"},
    }
    if ours:
        settings["log_verdicts"] = 0
        settings["length_gate"] = None
        settings["judge_lookahead"] = arm.name in ("look-ahead", "one step off")
        settings["judge_lag"] = int(arm.name == "one step off")
    return (BalCapTrainer if ours else GRPOTrainer)(
        model=str(out / "captioner"),
        reward_funcs=rewards,
        args=(BalCapConfig if ours else GRPOConfig)(**settings),
        train_dataset=train,
        callbacks=[StepTimes(arm)],
    )


def free_step(train: Any, steps: int, out: Path) -> float:
    """Seconds per step with rewards that cost nothing."""
    arm = Arm("free rewards", BATCHES)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer_of(arm, None, train, steps, out).train()
    return statistics.median(arm.seconds)


def run(rounds: int, steps: int, out: Path) -> tuple[list[Arm], dict[str, float]]:
    """Trains all arms in turn; returns their measurements and the latencies that were chosen."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    torch.set_num_threads(1)
    build_qwen(out / "captioner", hidden_size=192, num_layers=5)
    train = demo_scenes(str(out), rows=256)
    rest = free_step(train, steps, out)
    arms = [Arm("GRPOTrainer", BATCHES), Arm("free rewards", BATCHES), Arm("free rewards", 1)]
    for share in SHARES:
        arms += [Arm("TRL's order", BATCHES, share), Arm("look-ahead", BATCHES, share)]
        arms += [Arm("TRL's order", 1, share), Arm("one step off", 1, share)]
    latencies: dict[str, float] = {}
    with contextlib.ExitStack() as open_servers:
        servers: dict[float, ServerHandle] = {}  # by latency
        trainers = []
        for arm in arms:
            server = None
            if arm.share is not None:
                latency = arm.share * rest / arm.batches / ROUND_TRIPS
                latencies[f"{arm.share:g} x the rest, {arm.batches} batches"] = latency
                if latency not in servers:
                    server = open_servers.enter_context(serve(latency=latency, process=True))
                    psutil.Process(server.pid).cpu_affinity([cores[-1]])
                    servers[latency] = server
                server = servers[latency]
            trainers.append((arm, server, trainer_of(arm, server, train, steps, out)))
        for _ in range(rounds):
            for arm, server, trainer in trainers:
                begun = server_cpu(server)
                with contextlib.redirect_stdout(io.StringIO()):  # the summaries of 15 runs
                    trainer.train()
                arm.server.append((server_cpu(server) - begun) / (steps + 2))
    return arms, latencies


def server_cpu(server: ServerHandle | None) -> float:
    if server is None:
        return 0.0
    used = psutil.Process(server.pid).cpu_times()
    return used.user + used.system


def figures_of(arms: list[Arm]) -> list[dict[str, Any]]:
    """Each arm's medians, relative to free rewards in the same number of batches."""
    free = {arm.batches: arm for arm in arms if arm.name == "free rewards"}
    # The CPU that judging takes in the trainer's process does not depend on the order of work.
    client = {
        (arm.batches, arm.share): statistics.median(arm.cpu)
        - statistics.median(free[arm.batches].cpu)
        for arm in arms
        if arm.name == "TRL's order"
    }
    rows = []
    for arm in arms:
        seconds, base = (statistics.median(values.seconds) for values in (arm, free[arm.batches]))
        mine = client.get((arm.batches, arm.share), 0.0)
        rows.append(
            {
                "arm": arm.name,
                "batches": arm.batches,
                "judging / rest": arm.share,
                "step_seconds": seconds,
                "over_free": seconds / base,
                "client_cpu": mine,
                "server_cpu": statistics.median(arm.server),
                "less_client_over_free": (seconds - mine) / base,
                "waiting": seconds - base - mine,
                "goal": goal_of(arm),
                "timed_steps": len(arm.seconds),
            }
        )
    return rows


def goal_of(arm: Arm) -> float | None:
    if arm.name == "one step off" and (arm.share or 0.0) >= 1.0:
        return None  # judging takes as long as the rest, or longer
    return GOALS.get(arm.name)


def table(rows: list[dict[str, Any]]) -> Table:
    view = Table(title="one update of 64 captions, medians", title_justify="left")
    for name in ("arm", "batches", "judging / rest", "step s", "/ free", "client CPU s"):
        view.add_column(name, justify="left" if name == "arm" else "right")
    for name in ("server CPU s", "less client / free", "goal"):
        view.add_column(name, justify="right")
    for row in rows:
        share, goal = row["judging / rest"], row["goal"]
        view.add_row(
            row["arm"],
            str(row["batches"]),
            "free" if share is None else f"{share:g}",
            f"{row['step_seconds']:.2f}",
            f"{row['over_free']:.2f}",
            f"{row['client_cpu']:.2f}",
            f"{row['server_cpu']:.2f}",
            f"{row['less_client_over_free']:.2f}",
            "" if goal is None else f"{goal:g}",
        )
    return view


def main(rounds: int, steps: int) -> None:
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as out:
        arms, latencies = run(rounds, steps, Path(out))
    rows = figures_of(arms)
    Console(width=120).print(table(rows))
    grpo, free, *_ = rows
    ratio = free["step_seconds"] / grpo["step_seconds"]
    print(f"BalCapTrainer / GRPOTrainer with free rewards: {ratio:.3f}")
    kept = {
        "load_at_start": [round(one, 2) for one in load],
        "cores": os.cpu_count(),
        "latency_seconds": latencies,
        "balcap_over_grpo": ratio,
        "arms": rows,
    }
    print(f"Kept in {write_results('lookahead', kept)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2, help="turns of each arm")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn")
    options = parser.parse_args()
    main(options.rounds, options.steps)
