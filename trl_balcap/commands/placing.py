"""Flags for models that are too large for one GPU, the same where captions are made."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trl_balcap.captioning.engine import Placement

__all__ = ["add_placement_flags", "placement_from"]


def add_placement_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--device-map` and `--tensor-parallel-size` to a command."""
    parser.add_argument(
        "--device-map",
        metavar="MAP",
        help="transformers: where the model goes, such as auto, which spreads it over all GPUs",
    )
    parser.add_argument(
        "--tensor-parallel-size", type=int, metavar="N", help="vLLM: GPUs that share each layer"
    )


def placement_from(args: argparse.Namespace) -> "Placement":
    """What those flags gave."""
    from trl_balcap.captioning.engine import Placement

    return Placement(args.device_map, args.tensor_parallel_size)
