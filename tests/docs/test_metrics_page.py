"""docs/metrics.md lists every number that is logged besides TRL's."""

from pathlib import Path

from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    LinguisticReward,
    PrecisionReward,
    RecallReward,
)

DOCS = Path(__file__).parents[2] / "docs"
OURS = (
    "judge/",
    "length_gate/",
    "credit/",
    "advantages/",
    "rewards/",
    "b_capscore",
    "completions/distinct",
)


def test_every_logged_number_is_on_the_page(tiny_qwen, scenes, tmp_path):
    judge = Judge("scenes/oracle")
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)],
        BalCapConfig(
            str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_steps=1, logging_steps=1,
            per_device_train_batch_size=8, num_generations=4, max_completion_length=24,
            save_strategy="no", length_gate_lower=0.0, credit="assertion",
        ),
        train_dataset=scenes,
    )  # fmt: skip
    trainer.train()
    logged = [name for name in trainer.state.log_history[0] if name.startswith(OURS)]
    assert len(logged) > 20
    page = (DOCS / "metrics.md").read_text() + (DOCS / "judge.md").read_text()
    for name in logged:
        general = name
        for reward in ("precision_reward", "recall_reward", "linguistic_reward"):
            if "judge" not in name or name.endswith("unscored"):
                general = general.replace(reward, "<name>")
        last = "/" + name.rpartition("/")[2]  # after the first of several: `/std`
        assert f"`{general}`" in page or f"`{last}`" in page, name
