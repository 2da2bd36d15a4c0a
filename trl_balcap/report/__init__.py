"""What the judge saw: verdicts kept as Parquet, and the page that shows them."""

from trl_balcap.report.log import RunLog as RunLog
from trl_balcap.report.rollouts import rollout_rows as rollout_rows
from trl_balcap.report.verdicts import VERDICT_SCHEMA as VERDICT_SCHEMA
from trl_balcap.report.verdicts import VerdictWriter as VerdictWriter
from trl_balcap.report.verdicts import read_thumbnails as read_thumbnails
from trl_balcap.report.verdicts import read_verdicts as read_verdicts

__all__ = [
    "VERDICT_SCHEMA",
    "RunLog",
    "VerdictWriter",
    "read_thumbnails",
    "read_verdicts",
    "rollout_rows",
]
