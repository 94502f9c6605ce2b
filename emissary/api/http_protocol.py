"""Answers what is not HTTP, before there is a request that the application could see, with the envelope too."""

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class EnvelopeProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with our errors; for `uvicorn --http`."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read (`msg` is uvicorn's word for it) and close the connection."""
        sentence = f"{msg.rstrip('.')}: what was sent is not HTTP/1.1, or its head is too long."
        body = json.dumps({"status": 400, "error": sentence, "code": "invalid_input"}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
