"""Only the studio's own page, at its own address and with its token, is answered."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from studio_page import ADDRESS, PORT, TOKEN

from tlora_cli.studio.security import POLICY, Gate

READS = ("/", "/studio.js", "/api/state", "/photo/luna", "/report/luna", "/exports/a")
SECRET = {"what", "machine", "works", "html"}


def refused(client: TestClient, path: str, method: str = "GET", **headers: str) -> bool:
    answer = client.request(method, path, headers=headers)
    assert "set-cookie" not in answer.headers
    assert answer.status_code in (200, 303, 400, 403, 404), answer.text
    if answer.status_code == 403:
        assert answer.text.count("\n") == 1 and not SECRET & set(answer.text.split())
    return answer.status_code == 403


@pytest.mark.parametrize("path", READS)
def test_without_the_token_nothing_is_shown(stranger: TestClient, path: str) -> None:
    assert refused(stranger, path)
    assert refused(stranger, f"{path}?token=wrong")
    stranger.cookies.set(f"tlora-studio-{PORT}", "wrong")
    assert refused(stranger, path)


def test_the_address_with_the_token_opens_the_page(stranger: TestClient) -> None:
    answer = stranger.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert "tlora studio" in stranger.get("/").text  # the cookie is kept, as for a reload
    assert refused(TestClient(stranger.app, ADDRESS), "/api/state?token=" + TOKEN), "only the page"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:80", "evil.example:7861", ""]
)
def test_another_host_gets_nothing(client: TestClient, host: str) -> None:
    assert refused(client, "/api/state", host=host)
    assert refused(client, f"/?token={TOKEN}", host=host)


@pytest.mark.parametrize("host", ["127.0.0.1:7861", "localhost:7861", "[::1]:7861"])
def test_its_own_names_are_answered(client: TestClient, host: str) -> None:
    assert not refused(client, "/api/state", host=host, origin=f"http://{host}")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:7862", "https://127.0.0.1:7861",
     "http://localhost:7861"],
)  # fmt: skip
def test_another_origin_gets_nothing(client: TestClient, origin: str) -> None:
    assert refused(client, "/api/state", origin=origin)
    assert refused(client, "/api/photo?name=a.png", "POST", origin=origin)


def test_a_change_must_say_where_it_comes_from(client: TestClient) -> None:
    del client.headers["Origin"]
    assert refused(client, "/api/stop-job", "POST")
    assert not refused(client, "/api/state")


def test_other_pages_can_not_show_its_pictures(client: TestClient) -> None:
    for place in ("cross-site", "same-site"):
        assert refused(client, "/photo/luna", **{"sec-fetch-site": place})
    assert not refused(client, "/photo/luna", **{"sec-fetch-site": "same-origin"})


@pytest.mark.parametrize("path", [*READS, "/nothing/here"])
def test_every_answer_has_the_policy(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == POLICY or path == "/report/luna"
    assert "'unsafe-eval'" not in POLICY and "http" not in POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


def test_on_all_addresses_numbers_are_right_and_names_of_strangers_are_not() -> None:
    gate = Gate("0.0.0.0", 7861, TOKEN)
    assert not gate.is_local and TOKEN in gate.address and "0.0.0.0" not in gate.address
    assert gate.knows_host("192.168.1.5:7861") and not gate.knows_host("evil.example:7861")
    assert not Gate("192.168.1.5", 7861, TOKEN).knows_host("192.168.1.6:7861")
    assert "token" not in repr(gate).partition("port")[2]


@pytest.mark.parametrize(
    "path",
    ["/exports/../luna.yaml", "/exports/%2e%2e/luna.yaml", "/preview/luna/%2e%2e/x.png",
     "/drawing/%2e%2e/a.png", "/photo/%2e%2e", "/app.py", "/..%2fapp.py"],
)  # fmt: skip
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404) and "def " not in answer.text
