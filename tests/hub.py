"""A Hub on this machine: as much of its API as an upload needs, and what was uploaded."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What was uploaded: the repository's name, its files by path, and the paths of each commit."""

    url: str

    def __init__(self):
        self.repo: str | None = None
        self.files: dict[str, bytes] = {}
        self.commits: list[tuple[str, set[str]]] = []  # with their messages

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            return {"url": f"{self.url}/{self.repo}", "name": self.repo}
        if path.endswith("/preupload/main"):
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return {"files": [{**modes, "path": one["path"]} for one in json.loads(body)["files"]]}
        if path.endswith("/commit/main"):
            entries = [json.loads(line) for line in body.splitlines()]
            [message] = [one["value"]["summary"] for one in entries if one["key"] == "header"]
            files = [one["value"] for one in entries if one["key"] == "file"]
            added = {one["path"]: base64.b64decode(one["content"]) for one in files}
            self.files |= added
            self.commits.append((message, set(added)))
            url = f"{self.url}/{self.repo}/commit/{'0' * 40}"
            return {"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""}
        return {}


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """A Hub that anyone may write to, at `hub.url`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            data = json.dumps(hub.answer(self.path.partition("?")[0], body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _reply

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
