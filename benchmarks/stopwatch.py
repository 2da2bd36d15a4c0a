"""Splits a training step into phases, at the same places in any GRPOTrainer."""

import time
from collections import defaultdict
from contextlib import contextmanager

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

PHASES = ("generate", "wait for rewards", "log-probabilities", "backward and optimizer")


class Clock:
    """Seconds of each phase, with the GPU's queue drained at both ends. The time of a nested phase
    is not counted for the outer one, e.g. generating a batch while waiting for rewards."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []
        self._inner: list[float] = []  # seconds of the phases inside each open one

    @contextmanager
    def phase(self, name: str):
        begun = self.now()
        self._inner.append(0.0)
        try:
            yield
        finally:  # a phase may end with an exception that is caught outside
            whole = self.now() - begun
            self.seconds[name] += whole - self._inner.pop()
            if self._inner:
                self._inner[-1] += whole

    @staticmethod
    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


class StepClock(TrainerCallback):
    def __init__(self, clock: Clock):
        self.clock = clock

    def on_step_begin(self, args, state, control, **kwargs):
        self.clock.seconds.clear()
        self.begun = self.clock.now()

    def on_step_end(self, args, state, control, **kwargs):
        whole = self.clock.now() - self.begun
        parts = {name: self.clock.seconds[name] for name in PHASES[:3]}
        parts[PHASES[3]] = whole - sum(parts.values())
        self.clock.steps.append({"step": whole, **parts})


def timed(trainer_class: type[GRPOTrainer]) -> type[GRPOTrainer]:
    """The trainer class with the stopwatch in the same places, whichever class it is."""

    class Timed(trainer_class):
        clock: Clock

        def _generate(self, *args, **kwargs):
            with self.clock.phase(PHASES[0]):
                return super()._generate(*args, **kwargs)

        def _calculate_rewards(self, *args, **kwargs):
            with self.clock.phase(PHASES[1]):
                return super()._calculate_rewards(*args, **kwargs)

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            with self.clock.phase(PHASES[2]):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    return Timed
