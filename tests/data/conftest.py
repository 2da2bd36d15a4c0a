from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two drawn images in a sub-folder, one of them with an alpha channel."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (60, 40), "red").save(tmp_path / "pictures" / "red.png")
    Image.new("RGBA", (40, 60), (0, 0, 0, 0)).save(tmp_path / "pictures" / "clear.png")
    return tmp_path
