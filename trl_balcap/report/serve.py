"""Serves the report over HTTP, for a run on another machine or in progress."""

import hashlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["report_server", "runs_version"]


def runs_version(paths: Sequence[str | Path]) -> str:
    """
    A version string that changes when verdicts or log entries are added at the paths.

    Args:
        paths (`Sequence[str or Path]`):
            Paths shown in the report.
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
    Create a server for the report. Call `serve_forever` on it to run it.

    The page is built on request, and rebuilt only if there is new data.

    Args:
        make_page (`Callable[[str or None], str]`):
            Builds the page, given the version of its rows, or `None` if it should not ask for newer
            ones.
        paths (`Sequence[str or Path]`):
            Paths shown in the report.
        port (`int`):
            Port to listen on; 0 chooses a free one.
        watch (`bool`, *optional*, defaults to `False`):
            Whether an open page announces newer rows.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen on. The default is reachable only from this machine.

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
            """Do not log requests."""

    return ThreadingHTTPServer((host, port), Handler)
