"""An exam for judges: questions with known answers, to ask before you pay for training."""

from trl_balcap.exam.bank import Exam as Exam
from trl_balcap.exam.bank import make_exam as make_exam
from trl_balcap.exam.marks import Report as Report
from trl_balcap.exam.run import sit_exam as sit_exam

__all__ = ["Exam", "Report", "make_exam", "sit_exam"]
