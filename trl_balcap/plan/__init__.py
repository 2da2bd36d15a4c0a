"""A recipe checked before it is run: parameters, memory, batches, judge calls."""

from trl_balcap.plan.batch import GenerationBatch as GenerationBatch
from trl_balcap.plan.memory import MemoryPlan as MemoryPlan
from trl_balcap.plan.memory import Setup as Setup
from trl_balcap.plan.memory import memory_plan as memory_plan
from trl_balcap.plan.model import ModelShape as ModelShape
from trl_balcap.plan.model import model_shape as model_shape

__all__ = ["GenerationBatch", "MemoryPlan", "ModelShape", "Setup", "memory_plan", "model_shape"]
