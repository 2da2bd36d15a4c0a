"""A judge reward of one's own, and what becomes of rows that cannot be scored."""

import asyncio
import functools
import io

import numpy as np
import pytest
from PIL import Image
from trl.trainer.utils import get_callable_name, is_async_callable

from tests.judge.servers import GRADES, Answer, endpoint, tokens
from trl_balcap import Judge, JudgeReward, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.rewards import JudgingReport, RowError
from trl_balcap.rewards.hooks import is_async_reward, reward_name
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.world import Scene, Thing, draw

SCENE = Scene((Thing("red", "circle", "large", "top", "left"),))
CAPTION = describe(SCENE)
JUDGE = Judge("scenes/oracle")


def truncated_png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return buffer.getvalue()[:200]


class WordsReward(JudgeReward):
    """Words a caption has, of ten; a number is a bug, 'skip' a row that cannot be scored."""

    __name__ = "words_reward"
    sees = ("words", "list")

    async def score(self, row):
        if row.caption == "skip":
            raise RowError("skipped", "it says so")
        row.seen["words"] = len(row.caption.split())
        row.seen["list"] = row.caption.split()
        return row.seen["words"] / (0 if row.caption.isdigit() else 10)


def score(reward, completions, **columns):
    return asyncio.run(reward(prompts=[""] * len(completions), completions=completions, **columns))


def report_of(reward: JudgeReward) -> JudgingReport:
    report = reward.take_report()
    assert report is not None
    return report


def test_a_reward_of_ones_own():
    reward, logged, extra = WordsReward(JUDGE), {}, {}
    given = ["a red circle", "", "skip"]
    loggers = {"log_metric": logged.__setitem__, "log_extra": extra.__setitem__}
    assert score(reward, given, **loggers) == [0.3, 0.0, None]
    assert logged["judge/words_reward/unscored"] == 1 / 3
    assert extra == {"words_reward/words": [3, None, None], "words_reward/list": [3, None, None]}
    seen = reward.observations()
    assert [0 <= row.pop("latency", -1) < 60 for row in seen] == [True, False, True]
    assert [row.pop("usd", None) for row in seen] == [0.0, None, 0.0]  # nothing was asked
    assert seen == [
        {"words": 3, "list": ["a", "red", "circle"], "reward": 0.3},
        {"reward": 0.0},
        {"reason": "skipped"},
    ]
    report = report_of(reward)
    assert (report.asked, report.unscored) == (2, {"skipped": 1})
    assert reward.take_report() is None


def test_latency_is_a_captions_own():
    class Slow(JudgeReward):
        __name__ = "slow_reward"

        async def score(self, row):
            await asyncio.sleep(0.2 if row.caption == "slow" else 0.0)
            return 1.0

    reward = Slow(JUDGE)
    score(reward, ["slow", "fast"])
    slow, fast = (row["latency"] for row in reward.observations())
    assert slow >= 0.19
    assert fast < slow


@pytest.mark.parametrize("price", [(1.0, 3.0), None])
def test_the_first_of_equal_captions_pays(price):
    def answer(request):
        asked = "preflight" in str(request.body["messages"])
        text = '{"ready": true}' if asked else GRADES
        return Answer(texts=(text,), usage=tokens(prompt=100, completion=10))

    with endpoint(answer) as server:
        judge = Judge("openai/m", api_base=server.url, api_key="none", price=price)
        reward = LinguisticReward(judge)
        reward.preflight()
        score(reward, ["A star.", "A star.", "A dog."])
    bills = [row["usd"] for row in reward.observations()]
    each = None if price is None else pytest.approx((100 * 1.0 + 10 * 3.0) / 1e6)
    assert bills == [each, 0.0, each]


def test_a_bug_is_handed_on_with_its_traceback():
    reward = WordsReward(JUDGE)
    assert score(reward, ["one two", "7"]) == [0.2, None]
    report = report_of(reward)
    assert report.unscored == {"internal_error": 1}
    assert report.internal_error is not None
    assert "ZeroDivisionError" in report.internal_error
    assert "row.caption.isdigit()" in report.internal_error


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        pytest.param(None, "no_image", id="none"),
        pytest.param([], "no_image", id="no_images"),
        pytest.param(b"no image", "bad_image", id="unreadable"),
        pytest.param(truncated_png(), "bad_image", id="truncated"),
        pytest.param(Image.new("RGB", (0, 0)), "bad_image", id="no_pixels"),
        pytest.param("/no/such/file.png", "bad_image", id="missing_file"),
        pytest.param(7, "bad_image", id="a_number"),
        pytest.param(np.zeros((8, 8, 3)), "bad_image", id="an_array"),
    ],
)
def test_an_image_that_cannot_be_used_is_that_rows_trouble_alone(image, reason):
    reward = PrecisionReward(Judge("scenes/oracle"))
    assert score(reward, [CAPTION] * 2, image=[image, draw(SCENE)]) == [None, 1.0]
    report = report_of(reward)
    assert (report.asked, report.unscored, report.internal_error) == (1, {reason: 1}, None)


def test_no_images_at_all_asks_nobody():
    reward = PrecisionReward(Judge("scenes/oracle"))
    assert score(reward, [CAPTION], images=[[]]) == [None]
    assert reward.judge.stats.calls_of["verify"] == 0


@pytest.mark.parametrize("reference", [None, "", "\u200b", 7, ["A dog."]])
def test_a_reference_that_is_none_is_that_rows_trouble_alone(reference):
    reward = RecallReward(Judge("scenes/oracle"))
    assert score(reward, [CAPTION] * 2, reference=[reference, CAPTION]) == [None, 1.0]
    assert report_of(reward).unscored == {"no_reference": 1}


def test_references_are_split_before_there_are_captions():
    reward = RecallReward(Judge("scenes/oracle"))
    reward.preflight()
    reward.before_generation(reference=[CAPTION, CAPTION, None, ""], image=[None] * 4)
    score(reward, ["There is a star."], reference=[CAPTION])
    # the reference once, before; the caption once
    assert reward.judge.stats.calls_of["decompose"] == 2


def test_several_batches_are_held_and_each_is_joined_once():
    reward = WordsReward(Judge("scenes/oracle"))
    asked = []

    async def count(row):
        asked.append(row.caption)
        return len(row.caption) / 10

    reward.score = count
    for batch in (["a", "bb"], ["ccc"], ["a", "bb"]):
        reward.start(completions=batch)
    assert score(reward, ["ccc"]) == [0.3]
    assert score(reward, ["a", "bb"]) == score(reward, ["a", "bb"]) == [0.1, 0.2]
    assert len(asked) == 5
    assert score(reward, ["ccc"]) == [0.3]  # nothing is held any more: asked again
    assert len(asked) == 6


def test_what_is_forgotten_is_called_off():
    reward = WordsReward(Judge("scenes/oracle"))
    done = []

    async def slow(row):
        await asyncio.sleep(0.05)
        done.append(row.caption)
        return 1.0

    reward.score = slow
    reward.start(completions=["old"])
    reward.forget()
    assert score(reward, ["new"]) == [1.0]
    assert done == ["new"]


def test_a_model_string_makes_a_judge():
    assert repr(PrecisionReward("scenes/oracle")) == "PrecisionReward(Judge('scenes/oracle'))"
    with pytest.raises(ValueError, match=r"takes a Judge or a litellm model string .* got 7"):
        PrecisionReward(7)  # pyright: ignore[reportArgumentType]


def test_unequal_columns_are_named():
    with pytest.raises(
        ValueError, match="got 2 completions but 1 values of the column `reference`"
    ):
        score(RecallReward(JUDGE), ["a", "b"], reference=["a"])


@pytest.mark.parametrize(
    "reward",
    [
        PrecisionReward(JUDGE),
        functools.partial(PrecisionReward(JUDGE), image=[]),
        functools.partial(functools.partial(score, None), completions=[]),
        len,
    ],
)
def test_names_and_kinds_are_trls(reward):
    assert reward_name(reward) == get_callable_name(reward)
    assert is_async_reward(reward) == is_async_callable(reward)
