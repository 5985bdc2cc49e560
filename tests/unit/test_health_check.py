"""The container's health check, as the Dockerfile writes it."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


class Service(BaseHTTPRequestHandler):
    """Answers as `/health/ready` does."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    """Both services, in an environment whose proxy is nowhere."""

    class Answers(Service):
        """Of this test alone."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("APPOINTMENT", "FINANCIAL"):
            monkeypatch.setenv(f"CLINIC_{name}_PORT", str(server.server_port))
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield Answers
        server.shutdown()


def exit_code() -> int:
    found = re.search(
        r'^HEALTHCHECK .* CMD python -c "(.*)"$', DOCKERFILE.read_text().replace("\\\n", ""), re.MULTILINE
    )
    assert found
    return subprocess.run([sys.executable, "-c", found[1]], stderr=subprocess.DEVNULL, check=False).returncode


def test_the_health_check_never_goes_through_a_proxy(service: type[Service]) -> None:
    assert (service.status, exit_code()) == (200, 0)


def test_the_health_check_fails_where_a_service_is_unready(service: type[Service]) -> None:
    service.status = 503
    assert exit_code() == 1
