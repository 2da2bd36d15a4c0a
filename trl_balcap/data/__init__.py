"""Loads captions from files, folders and datasets, and opens all images in the same way."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_balcap.data.captions import DEFAULT_PROMPT as DEFAULT_PROMPT
    from trl_balcap.data.captions import load_captions as load_captions
    from trl_balcap.data.checks import check_columns as check_columns
    from trl_balcap.data.checks import check_size as check_size
    from trl_balcap.data.rows import BadRowsError as BadRowsError
    from trl_balcap.data.scored import Caption as Caption
    from trl_balcap.data.scored import read_captions as read_captions

__all__ = [
    "DEFAULT_PROMPT",
    "BadRowsError",
    "Caption",
    "check_columns",
    "check_size",
    "load_captions",
    "read_captions",
]

# Imported on first use: encoding an image for a judge needs no `datasets`.
_LAZY = {
    "DEFAULT_PROMPT": "captions",
    "BadRowsError": "rows",
    "Caption": "scored",
    "check_columns": "checks",
    "check_size": "checks",
    "load_captions": "captions",
    "read_captions": "scored",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trl_balcap.data' has no attribute {name!r}")
    return getattr(import_module(f"trl_balcap.data.{_LAZY[name]}"), name)
