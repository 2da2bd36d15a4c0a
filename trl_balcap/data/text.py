"""The text of a file, in the encodings that say what they are; any other is named, not guessed."""

import codecs
from pathlib import Path

__all__ = ["read_text"]

# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """
    The text of a file in UTF-8, or in whatever its byte-order mark says.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `str`: Its text, without the mark.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if it is no regular file, or no text in UTF-8 and without a mark.

    Example:

    ```python
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "caption.txt"
    >>> _ = file.write_text("Une tasse fêlée.", encoding="utf-16")
    >>> read_text(file)
    'Une tasse fêlée.'

    ```
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}.")
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content[:4096]:
            raise ValueError(f"{path} is no text file.") from error
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: not {encoding.upper()} (byte 0x{content[error.start]:02x}); it looks "
            f"like Latin-1 or Windows-1252. Convert it: iconv -f cp1252 -t utf-8 {path} > new-file"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{path} is no text file in UTF-8: it holds NUL characters. UTF-16 is read where the "
            "file begins with its byte-order mark."
        )
    return text
