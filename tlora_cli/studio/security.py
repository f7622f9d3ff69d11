"""Who may ask the studio: its own page, at its own address, with its token. Others get nothing.

A web page of a stranger can send requests to an address of this machine, and a name of a stranger
can be made to point there. So `Host` must be the studio's own, `Origin` its own wherever something
is changed, and each request needs the token, which the browser keeps in a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing from elsewhere is loaded or asked; no script or style sheet stands in the page. Plots set
their colors in attributes."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NO_TOKEN = "Open the address that `tlora studio` printed: it holds the key to this page.\n"
ELSEWHERE = "This is not the address of this studio.\n"
FOREIGN = "This request comes from another page.\n"


@dataclass(frozen=True)
class Gate:
    """The address and the token of a studio.

    Attributes:
        host: that it listens on.
        port: likewise.
        token: what each request must bring.
    """

    host: str
    port: int
    token: str = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def cookie(self) -> str:
        """Name of the cookie; cookies don't tell ports apart, so it does."""
        return f"tlora-studio-{self.port}"

    @property
    def address(self) -> str:
        """The address to open, with the token."""
        host = "127.0.0.1" if self.host in ("localhost", "::1") else self.host
        if is_any(host):
            host = socket.gethostname()
        return f"http://{bracketed(host)}:{self.port}/?token={self.token}"

    def knows_host(self, given: str | None) -> bool:
        """Whether a request's Host is an address of this studio.

        A number is no name that could be made to point here, so where all addresses are listened
        on, each number is right.
        """
        if given is None:
            return False
        name, _, port = given.rpartition(":") if not given.endswith("]") else (given, "", "")
        if not name:
            name, port = given, "80"
        name = name.strip("[]").lower()
        if port and port != str(self.port):
            return False
        if self.is_local:
            return name == "localhost" or is_loopback(name)
        own = {self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return name in own or (is_any(self.host) and _is_number(name))

    def knows_token(self, given: str | None) -> bool:
        """Whether it is the token."""
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Whether it stands for all addresses of the machine."""
    return _is_number(host) and ipaddress.ip_address(host).is_unspecified


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """Return a host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


class Guard:
    """Lets through what the gate knows, and puts the page's policy on every answer.

    Args:
        app: what answers.
        gate: the studio's address and token.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        answer = self._refusal(scope) or self._with_token(scope) or self._app

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (*HEADERS.items(), ("Content-Security-Policy", POLICY)):
                    headers.setdefault(name, value)
            await send(message)

        await answer(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return what a request gets that doesn't come to this address, or from another page."""
        headers, gate = Headers(scope=scope), self._gate
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not gate.knows_host(hosts[0]):
            return PlainTextResponse(ELSEWHERE, 403)
        own = f"http://{hosts[0].lower()}"
        reads = scope["method"] in ("GET", "HEAD")
        origin = headers.get("origin")
        if (origin is None and not reads) or (origin is not None and origin.lower() != own):
            return PlainTextResponse(FOREIGN, 403)
        opened = reads and scope["path"] == "/"  # by a link, which brings no cookie
        if not opened and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return PlainTextResponse(FOREIGN, 403)
        return None

    def _with_token(self, scope: Scope) -> Response | None:
        """Return what a request without the token in its cookie gets; None for one that has it."""
        gate = self._gate
        if any(
            map(gate.knows_token, _cookies(Headers(scope=scope).getlist("cookie"), gate.cookie))
        ):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and scope["method"] == "GET" and any(map(gate.knows_token, given)):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(gate.cookie, gate.token, httponly=True, samesite="strict", path="/")
            return answer
        return PlainTextResponse(NO_TOKEN, 403)


def _cookies(lines: Iterable[str], name: str) -> list[str]:
    found = []
    for line in lines:
        try:
            jar = SimpleCookie(line)
        except CookieError:
            continue
        if name in jar:
            found.append(jar[name].value)
    return found
