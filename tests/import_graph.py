"""The package's rooms and which imports which.

python -m tests.import_graph     # draw them into CONTRIBUTING.md
"""

import re
from pathlib import Path

import grimp

PACKAGE = "trl_balcap"
PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
_DRAWING = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)

LAZY = {("judge", "scenes")}
"""The embedded judge registers itself with litellm when a model name begins with `scenes/`."""

LAYERS = (
    ("cli", "__main__"),
    ("commands",),
    ("demo",),
    ("trainer",),
    ("exam",),
    ("ahead", "callbacks", "captioning", "checkpoints", "evals", "inputs", "lookahead", "plan"),
    ("card", "config"),
    ("gating", "rewards"),
    ("judge", "report"),
    ("data",),
    (
        *("advantages", "align", "batch_numbers", "credit", "length", "metrics", "quiet"),
        *("sampled_logps", "scenes"),
    ),
)
"""From the command line down to what knows nobody. A room imports only from below its own layer, or
from its own layer where no circle comes of it."""


def module_graph() -> grimp.ImportGraph:
    """All modules and imports of the package, those inside functions and `TYPE_CHECKING` too."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def room_of(module: str) -> str:
    """The folder or file right below the package: `"judge"` for `trl_balcap.judge.client`."""
    return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def room_imports() -> set[tuple[str, str]]:
    """Pairs of rooms, importing and imported. The package's own `__init__` is not a room."""
    graph = module_graph()
    pairs = {
        (room_of(importer), room_of(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return {(a, b) for a, b in pairs if a and b and a != b}


def drawing() -> str:
    """The rooms as a Mermaid flow chart; an arrow that a longer way stands for is left out."""
    imports = room_imports() - LAZY
    lines = []
    for a, b in sorted(imports):
        if not _reaches(a, b, imports - {(a, b)}):
            lines.append(f"    {a} --> {b}")
    lines += [f"    {a} -. lazily .-> {b}" for a, b in sorted(LAZY)]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def _reaches(start: str, end: str, imports: set[tuple[str, str]]) -> bool:
    seen, ahead = set(), [start]
    while ahead:
        room = ahead.pop()
        if room == end:
            return True
        if room not in seen:
            seen.add(room)
            ahead += [b for a, b in imports if a == room]
    return False


def drawn() -> str:
    """The drawing as it stands on the page."""
    found = _DRAWING.search(PAGE.read_text(encoding="utf-8"))
    return found.group() if found else ""


if __name__ == "__main__":
    PAGE.write_text(_DRAWING.sub(drawing(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
