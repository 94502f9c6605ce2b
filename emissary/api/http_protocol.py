"""Answers what is not HTTP, before there is a request that the application could see, with the envelope too."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LINGER_SECONDS = 2.0


class EnvelopeProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with our errors; for `uvicorn --http`."""

    _refused = False

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; what comes after a refusal is read and thrown away.

        Closing with something unread would reset the connection, and the client might never see why it was refused
        (RFC 9112, section 9.6).
        """
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read (`msg` is uvicorn's word for it) and close the connection soon."""
        sentence = f"{msg.rstrip('.')}: what was sent is not HTTP/1.1, or its head is too long."
        body = json.dumps({"status": 400, "error": sentence, "code": "invalid_input"}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
