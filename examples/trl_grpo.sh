#!/usr/bin/env bash
# The rewards in TRL's stock command, by dotted path; the judge is set by environment variables.
# Put your dataset (columns prompt, image, reference), model and judge in place of the scenes.
set -euo pipefail
OUT=${OUT:-runs/trl_grpo}
BUNDLED=$(python -c "
from datasets import Image
from trl_balcap.demo import demo_scenes
from trl_balcap.scenes.captioner import captioner_path
scenes = demo_scenes('$OUT', rows=64).with_format(None)  # which leaves images unopened
scenes.cast_column('image', Image()).to_parquet('$OUT/dataset/train.parquet')
print(captioner_path())
")
MODEL=${MODEL:-$BUNDLED}

export TRL_BALCAP_JUDGE_MODEL=${TRL_BALCAP_JUDGE_MODEL:-scenes/oracle}
trl grpo \
    --model_name_or_path "$MODEL" --dtype float32 \
    --dataset_name "$OUT/dataset" \
    --reward_funcs trl_balcap.rewards.precision_reward \
                   trl_balcap.rewards.recall_reward \
                   trl_balcap.rewards.linguistic_reward \
    --multi_objective_aggregation normalize_then_sum \
    --output_dir "$OUT" --max_steps "${STEPS:-3}" \
    --per_device_train_batch_size 16 --num_generations 8 --max_completion_length 64 \
    --bf16 False --report_to none
