"""A small site on this machine, so that the programs run offline; `SITE=http://...` names another."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: How long a second takes: the tests of these programs hurry.
SECOND = float(os.environ.get("SECOND", "1"))


class SlowPages(BaseHTTPRequestHandler):
    """`GET /2` answers after two seconds."""

    def do_GET(self) -> None:
        time.sleep(float(self.path.strip("/")) * SECOND)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep silent: the programs print what matters."""


def _serve() -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowPages)
    threading.Thread(target=server.serve_forever, name="loopback", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


SITE = os.environ.get("SITE") or _serve()
