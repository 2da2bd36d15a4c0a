"""Checks a recipe before it runs: parameters, memory, batches, judge calls."""

from trl_balcap.plan.batch import GenerationBatch as GenerationBatch
from trl_balcap.plan.memory import MemoryPlan as MemoryPlan
from trl_balcap.plan.memory import Setup as Setup
from trl_balcap.plan.memory import memory_plan as memory_plan
from trl_balcap.plan.model import ModelShape as ModelShape
from trl_balcap.plan.model import model_shape as model_shape
from trl_balcap.plan.run import RunPlan as RunPlan
from trl_balcap.plan.run import make_plan as make_plan
from trl_balcap.plan.ways_out import ways_out as ways_out

__all__ = [
    "GenerationBatch",
    "MemoryPlan",
    "ModelShape",
    "RunPlan",
    "Setup",
    "make_plan",
    "memory_plan",
    "model_shape",
    "ways_out",
]
