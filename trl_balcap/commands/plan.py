"""`trl-balcap plan`: estimate a recipe's memory, judge calls and cost before running it."""

import argparse
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from trl_balcap.commands.showing import make_console, make_table, say

if TYPE_CHECKING:
    from trl_balcap.plan import RunPlan
    from trl_balcap.plan.memory import Term

__all__ = ["add_parser", "run"]

GIB = 2**30


def add_parser(subparsers: Any) -> None:
    """Add `plan` to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help="estimate a recipe's memory, batches and judge calls before running it",
        description="Checks a recipe without a GPU or network: parameters, memory per GPU, batch "
        "sizes, tokens per image, judge calls. Exits with status 1 if the recipe does not fit.",
    )
    parser.add_argument("--config", help="recipe, e.g. examples/configs/qwen2.5-vl-3b.yaml")
    parser.add_argument(
        "--accelerate-config", help="accelerate config (default: the one named in the recipe)"
    )
    parser.add_argument(
        "--num-processes", type=int, help="number of GPUs (default: from the accelerate config)"
    )
    parser.add_argument(
        "--gpu-memory",
        type=float,
        help="memory of one GPU in GiB (default: this machine's GPU, else 80)",
    )
    parser.add_argument(
        "--image-tokens", type=int, help="tokens per image, for models that plan does not know"
    )
    parser.add_argument(
        "--judge-price",
        type=float,
        nargs=2,
        metavar=("PROMPT", "COMPLETION"),
        help="judge's price in dollars per million tokens (default: from litellm)",
    )
    parser.add_argument(
        "--network", action="store_true", help="allow downloading the model's config from the Hub"
    )
    parser.add_argument(
        "--without-data",
        action="store_true",
        help="assume images and captions of typical size instead of reading the dataset",
    )
    parser.add_argument(
        "flags",
        nargs="*",
        help="after `--`: training script flags that override the recipe",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Print the plan.

    Returns:
        `int`: 0 if the recipe fits, else 1.

    Raises:
        `FileNotFoundError`, `ValueError`: as for [`make_plan`].
    """
    import torch

    from trl_balcap.plan.run import make_plan

    gpu_memory = args.gpu_memory
    if gpu_memory is None:
        cuda = torch.cuda.is_available()
        gpu_memory = torch.cuda.get_device_properties(0).total_memory / GIB if cuda else 80.0
    plan = make_plan(
        args.config,
        args.flags,
        accelerate_config=args.accelerate_config,
        num_processes=args.num_processes,
        gpu_memory=gpu_memory,
        tokens_per_image=args.image_tokens,
        judge_price=args.judge_price and tuple(args.judge_price),
        network=args.network,
        without_data=args.without_data,
    )
    _print(plan, make_console())
    return 0 if plan.fits else 1


def _print(plan: "RunPlan", console: Console) -> None:
    from trl_balcap.plan.memory import HEADROOM
    from trl_balcap.plan.notes import notes
    from trl_balcap.plan.ways_out import ways_out

    console.print(_facts(plan))
    console.print(_memory_table(plan))
    console.print(_judging_table(plan))
    for line in notes(plan):
        say(console, line)
    need, have = plan.memory.peak / GIB, plan.gpu_memory
    if plan.fits:
        say(console, f"fits: {need:.1f} of {have:.0f} GiB per GPU, with {HEADROOM:.0%} kept free")
        return
    say(
        console,
        f"does not fit: needs {need:.1f} GiB, plus {HEADROOM:.0%} of {have:.0f} GiB kept free. "
        "Change one of these:",
    )
    for change in ways_out(plan):
        say(console, f"  - {change}")


def _facts(plan: "RunPlan") -> Table:
    shape, batch, launch, settings = plan.shape, plan.batch, plan.launch, plan.settings
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", shape.name)
    table.add_row("parameters", f"{shape.parameters:,} ({shape.trainable:,} trained)")
    stage = f"ZeRO-{launch.zero_stage}" if launch.zero_stage else "no ZeRO"
    offload = ", optimizer on the host" if launch.offload_optimizer else ""
    machines = f" on {launch.machines} machines" if launch.machines > 1 else ""
    table.add_row(
        "launch", f"{launch.processes} GPUs{machines}, {stage}{offload} ({launch.source})"
    )
    table.add_row(
        "generation batch",
        f"{batch.per_device_train_batch_size} x {batch.processes} GPUs x {batch.micro_batches} "
        f"micro-batches = {batch.completions} completions = {batch.prompts} prompts x "
        f"{batch.num_generations}",
    )
    table.add_row("optimizer batch", f"{batch.optimizer_completions} completions")
    table.add_row("tokens per image", f"{plan.image.tokens} ({plan.image.rule})")
    table.add_row(
        "sequence",
        f"{plan.prompt_tokens} prompt + {plan.image.tokens} image + "
        f"{settings.max_completion_length} completion",
    )
    if plan.steps is not None:
        table.add_row("run", f"{plan.steps:,} optimizer steps")
    return table


def _memory_table(plan: "RunPlan") -> Table:
    table = make_table("memory per GPU", ("term", "formula", "GiB"), left=2)

    def rows(terms: "tuple[Term, ...]") -> None:
        for term in terms:
            table.add_row(term.name, term.formula, f"{term.bytes / GIB:.2f}")

    memory = plan.memory
    rows(memory.static)
    table.add_section()
    rows(memory.generating)
    table.add_row("peak, generating", "", f"{memory.generation_peak / GIB:.2f}", style="bold")
    table.add_section()
    rows(memory.training)
    rows(memory.stepping)
    table.add_row("peak, training", "", f"{memory.training_peak / GIB:.2f}", style="bold")
    return table


def _judging_table(plan: "RunPlan") -> Table:
    judging = plan.judging
    run = judging.run
    table = make_table(
        "judging, at most", ("question", "calls per batch", "prompt tokens", "reply tokens")
    )
    for question in judging.batch.questions:
        table.add_row(
            question.question,
            f"{question.calls:,}",
            f"{question.prompt_tokens:,}",
            f"{question.completion_tokens:,}",
        )
    for name, estimate in (("a generation batch", judging.batch), ("the whole run", run)):
        if estimate is not None:
            cost = "" if estimate.usd is None else f": ${estimate.usd:,.2f}"
            if estimate.usd_cached != estimate.usd:
                cost += f" (${estimate.usd_cached:,.2f} if the judge caches prefixes)"
            table.add_section()
            table.add_row(
                f"{name}{cost}",
                f"{estimate.calls:,}",
                f"{estimate.prompt_tokens:,}",
                f"{estimate.completion_tokens:,}",
                style="bold",
            )
    return table
