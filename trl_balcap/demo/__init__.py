"""The full pipeline on the built-in default: drawn scenes, the exact judge, a tiny captioner."""

from trl_balcap.demo.recipe import demo_config as demo_config
from trl_balcap.demo.recipe import demo_scenes as demo_scenes
from trl_balcap.demo.run import HeldOutScores as HeldOutScores
from trl_balcap.demo.run import evaluate_captioner as evaluate_captioner
from trl_balcap.demo.run import run_demo as run_demo

__all__ = ["HeldOutScores", "demo_config", "demo_scenes", "evaluate_captioner", "run_demo"]
