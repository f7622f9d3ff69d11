"""The walls of the study's server: who may ask, and what a browser may do with the answer."""

from __future__ import annotations

from collections.abc import Mapping

HOST = "127.0.0.1"
"""The only address the server listens on: this computer's own."""

POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LONGEST_BODY = 4096
"""Bytes of a vote, at most."""


def own_hosts(port: int) -> tuple[str, ...]:
    """Return the names under which the server is asked for."""
    return f"{HOST}:{port}", f"localhost:{port}"


def refusal(headers: Mapping[str, str], port: int, writes: bool) -> str:
    """Return why a request is refused; empty if it may come in.

    A page of another site can make a browser ask; it then sends its own origin, or says so in
    Sec-Fetch-Site. A name that was pointed at this computer (DNS rebinding) shows in Host.

    Args:
        headers: of the request.
        port: of the server.
        writes: whether it would change anything; then the browser must say where it comes from.
    """
    host = headers.get("Host", "")
    if host not in own_hosts(port):
        return "this server is asked for under another name"
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if origin is not None and origin != f"http://{host}":
        return "the request comes from another page"
    if site is not None and site not in ("same-origin", *(() if writes else ("none",))):
        return "the request comes from another page"
    if writes and origin is None:
        return "the request doesn't say which page it comes from"
    if writes and headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        return "a vote is JSON"
    return ""
