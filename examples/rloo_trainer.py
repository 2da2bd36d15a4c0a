"""The three rewards in TRL's RLOOTrainer, which adds them up with your own weights.

    python examples/rloo_trainer.py

runs a few steps on drawn scenes. Replace the model, dataset and judge with your own.
"""

from transformers import AutoProcessor
from trl import RLOOConfig, RLOOTrainer

from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward, gate_reward
from trl_balcap.demo import demo_scenes
from trl_balcap.scenes.captioner import captioner_path


def main(output_dir: str = "runs/rloo_trainer", max_steps: int = 3) -> RLOOTrainer:
    judge = Judge("scenes/oracle")
    model = str(captioner_path())
    processor = AutoProcessor.from_pretrained(model)
    trainer = RLOOTrainer(
        model=model,
        reward_funcs=[
            PrecisionReward(judge),
            RecallReward(judge),
            gate_reward(LinguisticReward(judge), processor),
        ],
        args=RLOOConfig(
            output_dir=output_dir,
            reward_weights=[1.0, 1.0, 1.0],
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
