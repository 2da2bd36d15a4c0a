"""What a reward says about its judging, for whoever decides whether the run goes on."""

from dataclasses import dataclass, field


@dataclass
class JudgingReport:
    """What happened to a reward's questions since the last report. Small, so that ranks gather it.

    Args:
        reward (`str`):
            Name of the reward function.
        judge (`str`):
            Who was asked.
        asked (`int`):
            Completions that needed a verdict.
        unscored (`dict[str, int]`):
            How many of them got none, by reason.
        failing_reply (`str`, *optional*):
            One reply or error of the judge that failed, in short.
        budget_spent (`str`, *optional*):
            Which budget is spent, if one is.

    Example:

    ```python
    >>> report = JudgingReport("recall_reward", "openai/m", asked=8, unscored={"timeout": 6})
    >>> report.unscored_share
    0.75

    ```
    """

    reward: str
    judge: str = ""
    asked: int = 0
    unscored: dict[str, int] = field(default_factory=dict)
    failing_reply: str | None = None
    budget_spent: str | None = None

    @property
    def unscored_share(self) -> float:
        """Share of the asked completions that got no verdict; 0.0 if none was asked."""
        return sum(self.unscored.values()) / self.asked if self.asked else 0.0
