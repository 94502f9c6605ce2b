"""HTTP/1.1 as the API speaks it: what is not HTTP gets the envelope too, and no request is lost at the end."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CLOSE = (b"connection", b"close")
_LINGER_SECONDS = 2.0
_LAST_SECONDS = 1.0


class EnvelopeProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with our errors and a softer end; for `uvicorn --http`."""

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

    def shutdown(self) -> None:
        """Have the answer that is under way be the last on this connection.

        One without is closed a moment later: a request may be on its way already, and is answered.
        """
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LAST_SECONDS, self._close_when_idle)
        else:
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE]
        super().shutdown()
