"""A scene and settings small enough for a test of the reproduction."""

from benchmarks.reproduction.settings import Settings
from trl_balcap.scenes.world import Scene, Thing

STAR = Scene((Thing("red", "star", "large", "top", "left"),))
TINY = Settings(
    steps=2, prompts_per_step=2, num_generations=4, max_completion_length=12, test_scenes=4
)
