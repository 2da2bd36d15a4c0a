"""
The published benchmarks' own numbers, case by case.

`parity/*.json` holds invented inputs with what the official scripts gave for them: each case has a
`kind`, `inputs` and `official_output`. `EVAL_PARITY_DIR` names another folder of such files.
"""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.evals.metrics.parity_caparena import (
    auto_pairs,
    auto_scores,
    call_llm,
    caption_agreement,
    elo,
    judge_loop,
    model_agreement,
)
from tests.evals.metrics.parity_captioning import (
    compute_precision_recall,
    extract_letter,
    format_json_input,
    is_yesno_question,
    lmms_eval_run,
    normalize_gt_letter,
    parse_text_json,
    pipeline,
    run,
)

FOLDER = Path(os.environ.get("EVAL_PARITY_DIR", Path(__file__).parent / "parity"))
CASES = [case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())]


@pytest.fixture
def chat_server():
    """A loopback server that answers each request with the next (status, body), and keeps the
    requests."""
    started = []

    def start(responses: list[tuple[int, Any]]) -> SimpleNamespace:
        left, requests = list(responses), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = left.pop(0) if len(left) > 1 else left[0]
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format, *args):
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        started.append((server, thread))
        url = f"http://127.0.0.1:{server.server_port}/v1"
        return SimpleNamespace(url=url, requests=requests)

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


CHECKS = {
    check.__name__: check
    for check in (
        compute_precision_recall,
        parse_text_json,
        format_json_input,
        pipeline,
        extract_letter,
        is_yesno_question,
        normalize_gt_letter,
        run,
        lmms_eval_run,
        judge_loop,
        call_llm,
        auto_pairs,
        auto_scores,
        elo,
        caption_agreement,
        model_agreement,
    )
}


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}:{case['name']}" for case in CASES])
def test_official_number(case, tmp_path, request):
    assert case["kind"] in CHECKS, f"the test knows no kind {case['kind']!r}; add its check"
    extra = (request.getfixturevalue("chat_server"),) if case["kind"] == "call_llm" else ()
    CHECKS[case["kind"]](case["inputs"], case["official_output"], tmp_path, *extra)


def test_there_are_cases():
    assert len(CASES) > 0, f"no case in {FOLDER}"
    assert "EVAL_PARITY_DIR" in os.environ or {case["kind"] for case in CASES} == set(CHECKS)
