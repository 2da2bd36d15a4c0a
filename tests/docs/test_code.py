"""Python code in the docs runs as it stands: page by page, its blocks one after the other."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

from tests.judge.servers import Answer, endpoint
from trl_balcap import BalCapConfig, BalCapTrainer, Judge, PrecisionReward
from trl_balcap.scenes.benchmarks import write_benchmarks

DOCS = Path(__file__).parents[2] / "docs"
# Run by tests of their own, with more to check.
ELSEWHERE = {"report.md", "your-own-reward.md"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


PAGES = {page.name: page for page in sorted(DOCS.glob("*.md")) if blocks(page)}


def run(page: str, names: dict | None = None) -> dict:
    """Execute a page's blocks in one namespace; `await` may stand outside of a function."""
    namespace = dict(names or {})
    for number, block in enumerate(blocks(PAGES[page])):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(block, f"{page}, block {number + 1}", "exec", flags=flags)
        made = eval(code, namespace)
        if inspect.iscoroutine(made):
            asyncio.run(made)
    return namespace


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_every_page_with_code_is_tried():
    tried = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {page.removesuffix(".md") for page in PAGES.keys() - ELSEWHERE} <= tried


def test_method():
    assert "advantages" in run("method.md")


def test_elsewhere():
    trainer = run("elsewhere.md")["trainer"]
    assert "rewards/linguistic_reward/mean" in trainer.state.log_history[0]


def test_judge(monkeypatch):
    """Its judge is a server of OpenAI's form, at the address that the environment names."""
    with endpoint(lambda request: Answer(texts=("Yes.",) * request.body.get("n", 1))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        assert run("judge.md")["replies"] == ["Yes."] * 3
        assert {request.body["model"] for request in server.requests} == {"gpt-4o-mini"}


def test_evaluation(folder, tiny_qwen, scenes, capsys, monkeypatch):
    """On drawn scenes, with the exact judge in place of the paid one."""
    write_benchmarks(folder, 4)
    (folder / "good.jsonl").rename(folder / "captions.jsonl")
    config = BalCapConfig("out", use_cpu=True, bf16=False, report_to="none")
    rewards = [PrecisionReward(Judge("scenes/oracle"))]
    trainer = BalCapTrainer(str(tiny_qwen), rewards, config, train_dataset=scenes)
    monkeypatch.setattr("trl_balcap.Judge", lambda model: Judge("scenes/oracle"))
    (folder / "held_out.jsonl").write_bytes((folder / "captions.jsonl").read_bytes())
    run("evaluation.md", {"trainer": trainer})
    dcscore, recall = capsys.readouterr().out.split()
    assert float(dcscore) > 50
    assert 0 < float(recall) <= 100
