"""A scene and settings small enough for a test of the reproduction."""

from benchmarks.reproduction import train
from trl_balcap.scenes.world import Scene, Thing

STAR = Scene((Thing("red", "star", "large", "top", "left"),))
TINY = train.Settings(
    steps=2, prompts_per_step=2, num_generations=4, max_completion_length=12, test_scenes=4
)
