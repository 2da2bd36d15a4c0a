"""Captions from what users have: files, folders and datasets read, images opened by one rule."""

from trl_balcap.data.captions import DEFAULT_PROMPT as DEFAULT_PROMPT
from trl_balcap.data.captions import check_columns as check_columns
from trl_balcap.data.captions import load_captions as load_captions

__all__ = ["DEFAULT_PROMPT", "check_columns", "load_captions"]
