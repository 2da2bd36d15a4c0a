"""A run's log beside its verdicts."""

import json

import pytest

from trl_balcap.report.log import RunLog, read_log, read_run_facts


def test_what_a_resumed_run_logged_last_counts(tmp_path):
    log = RunLog(tmp_path)
    for step, loss in [(1, 0.1), (2, 0.2), (3, 0.3)]:
        log.append({"step": step, "loss": loss})
    resumed = RunLog(tmp_path)  # from step 1
    resumed.append({"step": 2, "loss": 0.9})
    resumed.append({"step": 2, "eval_greedy_b_capscore": 0.5})  # an evaluation logs on its own
    assert read_log(tmp_path) == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": 0.2},
        {"step": 2, "loss": 0.9},
        {"step": 2, "eval_greedy_b_capscore": 0.5},
    ]


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path):
    RunLog(tmp_path).append({"step": 1, "loss": 0.1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.1}]
    RunLog(tmp_path).append({"step": 2, "loss": 0.2, "note": "a\u2028b"})
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2]


def test_the_trainers_own_log_is_read_from_the_latest_checkpoint(tmp_path):
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        state = {"global_step": step, "log_history": [{"step": step, "loss": 1.0}]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    assert read_log(tmp_path) == [{"step": 10, "loss": 1.0}]


def test_a_folder_without_a_log_has_an_empty_one(tmp_path):
    assert read_log(tmp_path) == []
    assert read_run_facts(tmp_path) == {}


def test_an_entry_without_a_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs its step.*got None"):
        RunLog(tmp_path).append({"loss": 1.0})


@pytest.mark.parametrize("line", ['{"step": 2, "lo', '{"loss": 0.5}', "3"])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=r"log.jsonl:2 is not a log entry"):
        read_log(tmp_path)
