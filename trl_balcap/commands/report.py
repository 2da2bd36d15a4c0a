"""`trl-balcap report`: what the judge saw, on one HTML page."""

import argparse
from pathlib import Path
from typing import Any

from trl_balcap.commands.showing import make_console, say

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `report` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="show the curves, captions and verdicts of runs and scores on one page",
        description="Builds one HTML page from the verdicts kept by training and scoring: "
        "curves, every caption with its verdict sentence by sentence, and two runs side by side. "
        "The page needs no network and opens from disk.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="RUN_OR_SCORES",
        help="output_dir of a training run, --out folder of `score` or `calibrate`, or a folder "
        "containing such folders; beside them, --out folder of `exam`",
    )
    parser.add_argument("--out", help="output file (default: report.html in the first folder)")
    parser.add_argument("--title", help="page title (default: the folders' names)")
    parser.add_argument(
        "--max-rollouts",
        type=int,
        default=2000,
        help="rollouts shown per run, evenly spaced (default: 2000)",
    )
    parser.add_argument(
        "--serve", action="store_true", help="serve the page on this machine instead of writing it"
    )
    parser.add_argument(
        "--watch", action="store_true", help="with --serve: the open page announces new rows"
    )
    parser.add_argument("--port", type=int, default=8321, help="port for --serve (default: 8321)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, or serve it until Ctrl-C."""
    from trl_balcap.report.page import report_page
    from trl_balcap.report.runs import find_runs
    from trl_balcap.report.serve import report_server

    if args.watch and not args.serve:
        raise ValueError(
            "--watch needs --serve: a page on disk cannot ask for new rows. Add --serve."
        )
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be from 0 (any free port) to 65535, got {args.port}.")
    if args.out is not None and Path(args.out).is_dir():
        raise ValueError(f"{args.out} is a folder. Pass a file, such as {args.out}/report.html.")
    if args.max_rollouts < 1:
        raise ValueError(f"--max-rollouts must be 1 or more, got {args.max_rollouts}.")

    def make_page(live: str | None) -> str:
        runs = find_runs(args.paths)
        return report_page(runs, title=args.title, max_rows=args.max_rollouts, live=live)

    console = make_console()
    if args.serve:
        find_runs(args.paths)  # report missing folders here, not in the browser
        with report_server(make_page, args.paths, port=args.port, watch=args.watch) as server:
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            say(console, f"Serving the report at {address}. Press Ctrl-C to stop.")
            server.serve_forever()
    out = Path(args.out or Path(args.paths[0]) / "report.html")
    page = make_page(None)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    say(console, f"{out} ({len(page.encode()) / 1e6:.1f} MB). Open it in a browser.")
    return 0
