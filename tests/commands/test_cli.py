"""The command line as a whole: help at once, one manner of flags, one line for an error."""

import argparse
import inspect
import json
import signal
import subprocess
import sys

import pytest

import trl_balcap
from trl_balcap.cli import COMMANDS, build_parser, main

# What makes a command slow to start; a parser needs none of it.
SLOW = ("torch", "transformers", "trl", "datasets", "litellm", "pyarrow", "scipy", "matplotlib")


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Every subcommand's parser by its words, such as "scenes make"."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                deeper = parsers(inner)
                found |= {f"{name} {rest}": part for rest, part in deeper.items()} or {name: inner}
    return found


def test_the_parsers_import_nothing_slow():
    """`--help` of all subcommands within a second and a half is what this buys."""
    code = (
        "import sys, json\n"
        "from trl_balcap.cli import build_parser\n"
        "build_parser().format_help()\n"
        f"print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("module", ["evals.agree", "evals.arena", "evals.run"])
def test_scores_and_rankings_start_without_what_only_some_need(module):
    """SciPy's statistics and `datasets` take a second between them."""
    ranks = "import trl_balcap.evals.agree as a; a.agreement(dict(zip(a.HUMAN_RANKING, range(9))))"
    slow = ("datasets", "litellm", "scipy.stats", "torch", "transformers")
    code = f"import sys, trl_balcap.{module}; {ranks}\n"
    code += f"print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_flag_has_dashes_and_a_help_text():
    for words, parser in parsers(build_parser()).items():
        for action in parser._actions:
            assert action.help, f"{words} {action.dest}"
            assert not any("_" in flag for flag in action.option_strings), f"{words} {action.dest}"


def test_underscores_are_accepted_and_values_are_left_alone():
    args = build_parser().parse_args(["plan", "--gpu-memory", "24"])
    assert args.gpu_memory == 24
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["plan", "--gpu_memory", "24"])
    with pytest.raises(SystemExit, match="1"):
        main(["plan", "--config", "a_b.yaml", "--gpu_memory", "24"])


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"trl-balcap {trl_balcap.__version__}\n"


@pytest.mark.parametrize("module", ["trl_balcap", "trl_balcap.cli"])
def test_the_package_is_the_command(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"\n    {name}" in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--steps", "many"], "trl-balcap demo: argument --steps: invalid int value"),
        (["scenes"], "trl-balcap scenes: the following arguments are required: PART"),
        (["plan", "--gpus", "2"], "unrecognized arguments: --gpus"),
    ],
)
def test_a_wrong_flag_is_said_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_ctrl_c_ends_a_command_with_one_line(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("trl_balcap.scenes.make.write_scenes", interrupted)
    assert main(["scenes", "make", "--n", "1", "--out", "anywhere"]) == 130
    assert capsys.readouterr().err == "\ntrl-balcap: stopped by Ctrl-C.\n"


def test_ctrl_c_on_a_running_command_leaves_no_traceback():
    command = [sys.executable, "-m", "trl_balcap", "scenes", "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, this suite may be one, ignore Ctrl-C and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said == "\ntrl-balcap: stopped by Ctrl-C.\n"


def test_defaults_that_the_parsers_repeat_are_those_of_the_functions():
    from trl_balcap.captioning.run import caption_images
    from trl_balcap.commands import caption
    from trl_balcap.demo.run import run_demo
    from trl_balcap.evals.metrics.registry import METRICS
    from trl_balcap.evals.suites import SUITES
    from trl_balcap.scenes.build_captioner import build_captioner
    from trl_balcap.scenes.server import serve_forever

    found = parsers(build_parser())
    # A suite has its own; the defaults without one are these.
    of_suites = {"max_new_tokens": caption.MAX_NEW_TOKENS, "max_pixels": caption.MAX_PIXELS}
    assert tuple(SUITES) == caption.SUITES
    for words, function, renamed in (
        ("caption", caption_images, {}),
        ("demo", run_demo, {"steps": "max_steps"}),
        ("scenes captioner", build_captioner, {}),
        ("scenes serve", serve_forever, {}),
    ):
        parameters = inspect.signature(function).parameters
        compared = 0
        for action in found[words]._actions:
            parameter = parameters.get(renamed.get(action.dest, action.dest))
            if parameter is None or action.dest in ("faults", "noise", "out"):
                continue
            if words == "caption" and action.dest in of_suites:
                assert of_suites[action.dest] == parameter.default
                continue
            if parameter.default is not inspect.Parameter.empty:
                assert action.default == parameter.default, f"{words} {action.dest}"
                compared += 1
        assert compared > 0, words
    assert ", ".join(METRICS) in found["score"].format_help().replace("\n" + " " * 24, " ")
