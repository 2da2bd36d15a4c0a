"""How many completions one step generates, and whether they form complete groups."""

import math
from dataclasses import dataclass

__all__ = ["GenerationBatch"]


@dataclass(frozen=True)
class GenerationBatch:
    """
    TRL's batch arithmetic for GRPO, for any number of processes.

    TRL generates a batch of `per_device_train_batch_size x processes x steps_per_generation`
    completions, which must be complete groups of `num_generations`, and trains on it
    `num_iterations` times in micro-batches of `per_device_train_batch_size`.

    Args:
        per_device_train_batch_size (`int`): Completions per micro-batch and process.
        processes (`int`): Data-parallel processes.
        gradient_accumulation_steps (`int`): Micro-batches per optimizer step.
        num_generations (`int`): Completions per prompt (G).
        steps_per_generation (`int`, *optional*): Micro-batches per generation batch. Defaults to
            `gradient_accumulation_steps`, as in TRL.
        num_iterations (`int`, *optional*, defaults to `1`): Passes over a generation batch.

    Raises:
        `ValueError`: if the batch is not made of complete groups; the message has the nearest
            settings that work.

    Example:

    ```python
    >>> batch = GenerationBatch(4, processes=8, gradient_accumulation_steps=4, num_generations=8)
    >>> batch.completions, batch.prompts, batch.completions_per_process
    (128, 16, 16)

    ```
    """

    per_device_train_batch_size: int
    processes: int
    gradient_accumulation_steps: int
    num_generations: int
    steps_per_generation: int | None = None
    num_iterations: int = 1

    def __post_init__(self):
        for name in (
            "per_device_train_batch_size",
            "processes",
            "gradient_accumulation_steps",
            "num_iterations",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_generations < 2:
            raise ValueError(
                f"num_generations must be at least 2 (a group needs a spread), got "
                f"{self.num_generations}."
            )
        if self.completions % self.num_generations:
            # The smallest number of micro-batches that makes complete groups at this width.
            width = self.per_device_train_batch_size * self.processes
            least = self.num_generations // math.gcd(width, self.num_generations)
            raise ValueError(
                "A generation batch has per_device_train_batch_size "
                f"({self.per_device_train_batch_size}) x processes ({self.processes}) x "
                f"steps_per_generation ({self.micro_batches}) = {self.completions} completions, "
                f"which is not a multiple of num_generations ({self.num_generations}). Make "
                "steps_per_generation (or gradient_accumulation_steps, its default) a multiple "
                f"of {least}."
            )

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one generation batch."""
        return self.steps_per_generation or self.gradient_accumulation_steps

    @property
    def completions_per_process(self) -> int:
        """Completions that one process generates at a time."""
        return self.per_device_train_batch_size * self.micro_batches

    @property
    def completions(self) -> int:
        """Completions in one generation batch, over all processes."""
        return self.completions_per_process * self.processes

    @property
    def prompts(self) -> int:
        """Prompts in one generation batch."""
        return self.completions // self.num_generations

    @property
    def optimizer_completions(self) -> int:
        """Completions in one optimizer step, over all processes."""
        width = self.per_device_train_batch_size * self.processes
        return width * self.gradient_accumulation_steps

    def generations(self, steps: int) -> int:
        """
        Number of generation batches in `steps` optimizer steps.

        ```python
        >>> GenerationBatch(4, 8, 4, 8, num_iterations=2).generations(steps=100)
        50

        ```
        """
        micro = steps * self.gradient_accumulation_steps
        return math.ceil(micro / (self.micro_batches * self.num_iterations))

    def steps(self, rows: int, epochs: float) -> int:
        """
        Optimizer steps in `epochs` passes over a dataset of `rows` prompts.

        ```python
        >>> GenerationBatch(4, 8, 4, 8).steps(rows=90_000, epochs=1)
        5625

        ```
        """
        batches = rows // self.prompts  # TRL drops the last, incomplete generation batch
        micro = batches * self.micro_batches * self.num_iterations
        return math.ceil(epochs * micro / self.gradient_accumulation_steps)
