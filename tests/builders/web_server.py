"""A web server in a thread that behaves as badly as a test asks it to."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves one file.

    Attributes:
        content: Of the file.
        asked: Headers of each request.
        answer: Function of (handler, number of the request, first byte that is asked for).
    """

    def __init__(self, content):
        self.content, self.asked, self.answer = content, [], honest
        self.etag = '"1"'

    def url(self, path="/models/a.zip"):
        return f"http://127.0.0.1:{self.port}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        owner = self.server.owner
        owner.asked.append(dict(self.headers))
        wanted = self.headers.get("Range", "bytes=0-")
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            owner.answer(self, len(owner.asked), start)

    def reply(self, status, body=b"", **headers):
        """Send headers and a body, and end the connection."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


def honest(handler, _, start, stop=None, **changes):
    """Answer ranges as the standard says; `stop` ends the connection after so many bytes."""
    owner = handler.server.owner
    content, part = owner.content, owner.content[start:]
    headers = {"Content_Length": len(part), "ETag": owner.etag, "Accept_Ranges": "bytes"}
    condition = handler.headers.get("If-Range")
    if start and condition in (None, owner.etag):
        headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.reply(206, part[:stop], **{**headers, **changes})
    else:
        headers["Content_Length"] = len(content)
        handler.reply(200, content[:stop], **{**headers, **changes})


@contextlib.contextmanager
def serving(content):
    """Yield a server of some bytes."""
    server = Server(content)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listening.owner, server.port = server, listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
