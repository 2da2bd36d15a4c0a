"""What all arms of an experiment share: the world, the base, how long and on what to train."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CAPTIONERS", "SETTINGS", "Settings", "base_digest", "base_folder", "rich_bases"]

CAPTIONERS = Path(__file__).parents[1] / "captioners"
"""The base captioners of the rich world, each in a folder named after its captions' length."""


@dataclass(frozen=True)
class Settings:
    """Settings shared by all arms. Results with other settings belong to another experiment."""

    world: str = "small"
    steps: int = 40
    learning_rate: float = 2e-4
    prompts_per_step: int = 4
    num_generations: int = 8
    max_completion_length: int = 100
    test_scenes: int = 96


SETTINGS = {
    "small": Settings(),
    # Over three references long, and half the test scenes: a run takes minutes, not an hour.
    "rich": Settings(world="rich", max_completion_length=400, test_scenes=48),
}
"""By world."""


def base_folder(world: str, name: str | None = None) -> Path:
    """
    Where the captioner that training starts from lies.

    Args:
        world (`str`): A key of `SETTINGS`.
        name (`str`, *optional*):
            `"right"`, `"short"` or `"long"` for the rich world, or any folder. Defaults to the
            shipped captioner, and to `"right"` for the rich world.

    Raises:
        `SystemExit`: if there is no captioner.
    """
    if name is None and world == "small":
        from trl_balcap.scenes.captioner import captioner_path  # imports torch

        return captioner_path()
    name = name or "right"
    folder = CAPTIONERS / name if world == "rich" and (CAPTIONERS / name).exists() else Path(name)
    if not (folder / "model.safetensors").exists():
        known = ", ".join(rich_bases().values()) or "none"
        raise SystemExit(
            f"There is no captioner in {folder}. Name a folder, or for the rich world one of: "
            f"{known} (made by `python -m benchmarks.reproduction.captioners`)."
        )
    return folder


def base_digest(path: Path) -> str:
    """A short name for the weights that every arm starts from."""
    return hashlib.sha256((Path(path) / "model.safetensors").read_bytes()).hexdigest()[:12]


def rich_bases() -> dict[str, str]:
    """Names of the rich world's captioners by digest."""
    folders = sorted(CAPTIONERS.glob("*/model.safetensors"))
    return {base_digest(file.parent): file.parent.name for file in folders}
