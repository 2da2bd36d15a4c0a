"""The three rewards in TRL's own GRPOTrainer, without BalCapTrainer.

c-GDPO's formula is TRL's `normalize_then_sum`, and the length gate is a wrapper around the reward.

    python examples/grpo_trainer.py

runs a few steps on drawn scenes. Replace the model, dataset and judge with your own.
"""

from transformers import AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward, gate_reward
from trl_balcap.demo import demo_scenes
from trl_balcap.scenes.captioner import captioner_path


def main(output_dir: str = "runs/grpo_trainer", max_steps: int = 3) -> GRPOTrainer:
    # Or "gpt-4o-mini", "hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct", ...
    judge = Judge("scenes/oracle")
    model = str(captioner_path())
    processor = AutoProcessor.from_pretrained(model)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[
            PrecisionReward(judge),
            RecallReward(judge),
            gate_reward(LinguisticReward(judge), processor, lower=0.5, upper=2.0),
        ],
        args=GRPOConfig(
            output_dir=output_dir,
            multi_objective_aggregation="normalize_then_sum",
            max_steps=max_steps,
            logging_steps=1,
            per_device_train_batch_size=16,
            num_generations=8,
            max_completion_length=64,
            bf16=False,
            report_to="none",
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=demo_scenes(output_dir, rows=64),
        processing_class=processor,
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
