"""The server of a study: pages and pictures for raters, and a place for their votes.

It is the standard library's, listens on this computer alone, and keeps nothing in memory: a server
that was killed goes on where its votes are.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tlora_cli.foundation.errors import Status, UserError, system_reason
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.pages.templates import render
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.study.design import Study
from tlora_cli.study.state import state_of
from tlora_cli.study.trials import trials_of
from tlora_cli.study.votes import LONGEST_NAME, QUESTIONS, Votes
from tlora_cli.study.walls import HEADERS, HOST, LONGEST_BODY, refusal

TITLE = "Which picture is better?"
_PICTURE = re.compile(r"/picture/([0-9a-f]{12})\.png")


class StudyServer(ThreadingHTTPServer):
    """The server; `serve_forever` runs it.

    Args:
        study: the study.
        port: on this computer; 0 for one that is free.

    Raises:
        UserError: if the port is taken.
    """

    daemon_threads = True

    def __init__(self, study: Study, port: int) -> None:
        self.study, self.votes = study, Votes(study)
        self.trials = len(trials_of(study, 0))
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = system_reason(error) if isinstance(error, OSError) else str(error)
            raise UserError(
                f"the server can't listen on port {port}: {reason}",
                where="--port",
                do="name another one, or 0 for any that is free",
                kind=Status.LATER,
            ) from error

    @property
    def address(self) -> str:
        """The address for a browser."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong in a line; of a browser that went away there is nothing to say."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"warning: a request failed ({type(error).__name__}: {error})", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: StudyServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def version_string(self) -> str:
        """Return what the server calls itself."""
        return PRODUCT

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no log of requests: raters' names are in them."""

    def do_GET(self) -> None:
        """Answer a request for a page, a picture or a state."""
        if self._refused(writes=False):
            return
        try:
            self._answer()
        except UserError as error:
            self._say(error.what, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _answer(self) -> None:
        url = urlsplit(self.path)
        asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if match := _PICTURE.fullmatch(url.path):
            self._picture(match[1])
        elif url.path == "/":
            self._html("study/enter.html.jinja", **self._entrance(""))
        elif url.path == "/rate":
            self._rate(asked.get("rater", ""))
        elif url.path == "/state":
            self._state(asked)
        elif url.path in ("/study.js", "/study.css"):
            kind = "javascript" if url.path.endswith("js") else "css"
            self._send(_asset(url.path), f"text/{kind}; charset=utf-8")
        else:
            self._say("there is no such page", HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Keep a vote; the answer comes when it is on the disk."""
        self.close_connection = True  # a body that is refused is not read
        if self._refused(writes=True):
            return
        if self.path != "/vote":
            self._say("there is no such page", HTTPStatus.NOT_FOUND)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            self._say("a vote is short", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        votes = self.server.votes
        try:
            given = parse_json(self.rfile.read(int(length)))
            rater = votes.rater(_text(given["rater"]))
            position, seconds = int(given["position"]), float(given["seconds"])
            question, answer = _text(given["question"]), _text(given["answer"])
            votes.vote(rater, position, question, answer, seconds)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            reason = str(error) if type(error) is ValueError else "it is no vote"
            self._say(reason, HTTPStatus.BAD_REQUEST)
            return
        except UserError as error:
            self._say(error.what, HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._json({"kept": True})

    # --- answers ------------------------------------------------------------------------------

    def _refused(self, writes: bool) -> bool:
        headers = {name.title(): value for name, value in self.headers.items()}
        why = refusal(headers, self.server.server_port, writes)
        if why:
            self.close_connection = True
            self._say(why, HTTPStatus.FORBIDDEN)
        return bool(why)

    def _entrance(self, message: str) -> dict[str, Any]:
        return {
            "title": TITLE,
            "message": message,
            "trials": self.server.trials,
            "questions": list(QUESTIONS.values()),
            "longest": LONGEST_NAME,
        }

    def _rate(self, name: str) -> None:
        try:
            number = self.server.votes.rater(name)
        except ValueError as error:
            self._html("study/enter.html.jinja", **self._entrance(f"{error}."))
            return
        shown = self.server.votes.names()[number]
        self._html("study/rate.html.jinja", title=TITLE, rater=shown, questions=QUESTIONS)

    def _state(self, asked: dict[str, str]) -> None:
        try:
            votes = self.server.votes
            position = int(asked["position"]) if "position" in asked else None
            rater = votes.rater(asked.get("rater", ""))
            self._json(state_of(self.server.study, votes, rater, position))
        except ValueError as error:
            self._say(str(error), HTTPStatus.BAD_REQUEST)

    def _picture(self, name: str) -> None:
        file = self.server.study.picture(name)
        if not file.is_file():
            self._say("there is no such picture", HTTPStatus.NOT_FOUND)
            return
        self._send(file.read_bytes(), "image/png", "private, max-age=86400, immutable")

    def _html(self, template: str, **values: Any) -> None:
        self._send(render(template, **values).encode(), "text/html; charset=utf-8")

    def _json(self, values: dict[str, Any]) -> None:
        self._send(json.dumps(values).encode(), "application/json")

    def _say(self, text: str, status: HTTPStatus) -> None:
        self._send(text.encode(), "text/plain; charset=utf-8", status=status)

    def _send(
        self,
        body: bytes,
        kind: str,
        cache_control: str = "no-store",
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self.send_response(status)
        headers = {**HEADERS, "Content-Type": kind, "Cache-Control": cache_control}
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return value


@cache
def _asset(path: str) -> bytes:
    """Return the study's script, or its style after the one that all pages share."""
    own = files("tlora_cli.study").joinpath(path.lstrip("/")).read_bytes()
    if path.endswith("js"):
        return own
    return files("tlora_cli.foundation.pages").joinpath("style.css").read_bytes() + own
