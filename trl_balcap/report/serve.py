"""The report over HTTP, for a run on another machine or one that is still under way."""

import hashlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["report_server", "runs_version"]


def runs_version(paths: Sequence[str | Path]) -> str:
    """
    A mark of what lies at the paths, another one as soon as verdicts or log entries are added.

    Args:
        paths (`Sequence[str or Path]`):
            What the report is made of.
    """
    digest = hashlib.sha256()
    for path in paths:
        for pattern in ("*.parquet", "log.jsonl", "trainer_state.json"):
            for file in sorted(Path(path).rglob(pattern)):
                if not file.name.startswith("."):
                    digest.update(f"{file} {file.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def report_server(
    make_page: Callable[[str | None], str],
    paths: Sequence[str | Path],
    *,
    port: int,
    watch: bool = False,
    host: str = "127.0.0.1",
) -> ThreadingHTTPServer:
    """
    A server of the report, not yet running: call its `serve_forever`.

    The page is made when it is asked for, and again only when there is something new.

    Args:
        make_page (`Callable[[str or None], str]`):
            Makes the page, given the version of its rows, or `None` where it is not to ask for
            newer.
        paths (`Sequence[str or Path]`):
            What the report is made of.
        port (`int`):
            0 takes a free one.
        watch (`bool`, *optional*, defaults to `False`):
            Whether an open page tells its reader of newer rows.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen at; only this machine can reach the default.

    Returns:
        `ThreadingHTTPServer`.
    """
    made: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version = runs_version(paths)
            if self.path == "/version":
                self._answer(version.encode(), "text/plain; charset=utf-8")
            elif self.path == "/":
                if version not in made:
                    made.clear()
                    made[version] = make_page(version if watch else None).encode()
                self._answer(made[version], "text/html; charset=utf-8")
            else:
                self.send_error(404)

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are no news."""

    return ThreadingHTTPServer((host, port), Handler)
