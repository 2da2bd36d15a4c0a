"""What of a run a push to the Hub publishes, on a Hub on this machine."""

import os
import subprocess
import sys
from pathlib import Path

from tests.hub import Hub, serve_hub
from trl_balcap.scenes.make import write_scenes

ROOT = Path(__file__).parents[1]
# About the user's images, or a second model beside the published one.
PRIVATE = ("verdicts/", "caption_eval/", "completions/", "best-b-capscore/", "report.html")
MODEL = {"model.safetensors", "captioning.json", "processor_config.json", "README.md"}


def train_and_push(folder: Path, hub: Hub, **flags: object) -> None:
    """The training script with `--push_to_hub`, two steps on eight drawn scenes."""
    flags |= {"dataset": "scenes/captions.jsonl", "judge_model": "scenes/oracle"}
    flags |= {"push_to_hub": True, "hub_model_id": "me/captioner", "output_dir": "out"}
    flags |= {"max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 8}
    flags |= {"max_completion_length": 8, "report_to": "none", "use_cpu": True}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_nobody", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "train_qwen.py"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **here, "HF_HUB_DISABLE_XET": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_push_has_the_model_and_no_photograph(tmp_path):
    write_scenes(tmp_path / "scenes", 8)
    for name in ("caption_eval/step-1.jsonl", "best-b-capscore/model.safetensors", "report.html"):
        path = tmp_path / "out" / name  # of an evaluation and a look at the run so far
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the user's")
    with serve_hub() as hub:
        # TRL's default strategy pushes at each save; this one pushes the checkpoint, too.
        options = {"hub_strategy": "checkpoint", "hub_always_push": True, "log_completions": True}
        train_and_push(tmp_path, hub, **options)

    kept = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("out/**/*.*")}
    assert all(any(name.startswith(private) for name in kept) for private in PRIVATE), kept
    assert not [name for name in hub.files if name.startswith(PRIVATE)]

    messages = [message for message, _ in hub.commits]
    assert {"Training in progress, step 1", "Model save", "End of training"} <= set(messages)
    for message, added in hub.commits:
        if message.startswith("Training in progress") and message.endswith("checkpoint"):
            assert "last-checkpoint/model.safetensors" in added
        else:
            assert {"model.safetensors", "training_args.bin"} <= added
    assert hub.files.keys() >= MODEL
