"""One kept-alive connection to the coordinator, with bounded patience.

Loaded when something is sent, never on import. Every call made through it may be repeated: blobs
are content-addressed and journal lines are numbered.
"""

from __future__ import annotations

import http.client
import os
from urllib.parse import quote, urlsplit

from ._errors import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Optional, Union

    from ._settings import Server

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 15.0


class Unreachable(Exception):
    """No answer, or one that asks to come again later."""

    def __init__(self, message: str, nobody: bool = False) -> None:
        super().__init__(message)
        # Not even a connection could be made: nobody is there, rather than slow or out of luck.
        self.nobody = nobody


class Refused(Exception):
    """An answer that will not change by asking again."""

    def __init__(self, status: int, message: str, body: dict[str, object]) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.body = body


class Client:
    """Calls one server from one thread at a time."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        parts = urlsplit(server.url if "//" in server.url else "http://" + server.url)
        try:
            port = parts.port
        except ValueError:
            raise Unreachable(f"{server.url!r} is not an address; allowed are ones such as http://127.0.0.1:7477")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{server.url!r} is not an address; allowed are ones such as http://127.0.0.1:7477")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._token = server.token
        self._connection: Optional[http.client.HTTPConnection] = None

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_SECONDS, blocksize=256 * 1024)
        connection.connect()
        connection.sock.settimeout(ANSWER_SECONDS)
        return connection

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(
        self,
        method: str,
        path: str,
        body: Union[bytes, BinaryIO, None] = None,
        length: Optional[int] = None,
        kind: str = "application/json",
    ) -> tuple[int, bytes]:
        """Status and body of an answer; raises Unreachable where there is none."""
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = "Bearer " + self._token
        if method not in ("GET", "HEAD"):
            headers["Content-Type"] = kind
            headers["Idempotency-Key"] = os.urandom(16).hex()
            headers["Content-Length"] = str(len(body) if isinstance(body, bytes) else length or 0)
        while True:
            reused = connected = self._connection is not None
            try:
                connection = self._connection or self._connect()
                self._connection = connection
                connected = True
                try:
                    connection.request(method, self._prefix + path, body=body, headers=headers)
                except (BrokenPipeError, ConnectionResetError):
                    # A server that refuses early closes while we still send; its answer may be there.
                    if reused:
                        raise
                answer = connection.getresponse()
                content = answer.read()
                if answer.will_close:
                    self.close()
                return answer.status, content
            except (OSError, http.client.HTTPException, ValueError) as error:
                timed_out = isinstance(error, TimeoutError) or "timed out" in str(error)
                self.close()
                # A kept connection may have been closed by the server meanwhile: one fresh try.
                if not reused or timed_out:
                    raise Unreachable("timed out" if timed_out else reason(error), nobody=not connected) from None
                if body is not None and not isinstance(body, bytes):
                    body.seek(0)

    def expect(
        self,
        method: str,
        path: str,
        body: Union[bytes, BinaryIO, None] = None,
        length: Optional[int] = None,
        kind: str = "application/json",
    ) -> dict[str, object]:
        """The JSON object of a good answer; raises Refused or Unreachable for the others."""
        import json

        status, content = self.call(method, path, body, length, kind)
        try:
            parsed = json.loads(content) if content else {}
        except ValueError:
            parsed = {}
        answer = parsed if isinstance(parsed, dict) else {}
        if 200 <= status < 300:
            return answer
        message = str(answer.get("message") or f"status {status}")
        if answer.get("hint"):
            message += f"; {answer['hint']}"
        if status in (408, 425, 429) or status >= 500:
            raise Unreachable(message)
        raise Refused(status, message, answer)


def quoted(part: str) -> str:
    """A part of a path."""
    return quote(part, safe="")
