"""What a browser sends passes the same walls as a file, and what is refused leaves nothing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient
from studio_page import drawing, png

from tlora_cli.studio.drafts import STUDIO, draft_names, find_draft
from tlora_cli.studio.uploads import MOST

Give = Callable[[str, bytes], tuple[int, str]]


def bomb() -> bytes:
    """Return a PNG of a few bytes that says it has 50,000 x 50,000 pixels."""
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


BAD = {
    "a bomb": ("huge.png", bomb(), "million pixels", "image editor"),
    "no picture": ("notes.png", b"just a text", "it is damaged, or not a JPEG", "image editor"),
    "HTML with a picture's name": (
        "photo.jpg", b"<!doctype html><script>alert(1)</script>", "not a JPEG", "image editor",
    ),
    "SVG": ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a JPEG", "image editor"),
    "nothing": ("empty.jpg", b"", "the file is empty", "image editor"),
    "cut off": ("cut.png", drawing()[:300], "can't be read", "image editor"),
    "a path": ("../../etc/photo.png", drawing(), "can't hold a path", "a plain name"),
    "a path of Windows": ("..\\photo.png", drawing(), "can't hold a path", "a plain name"),
    "a name with a null": ("a\0.png", drawing(), "can't hold a path", "a plain name"),
    "a name with a line": ("a\nb.png", drawing(), "too long or odd", "a plain name"),
    "no name": ("", drawing(), "can't hold a path", "a plain name"),
    "tiny": ("tiny.png", png(Image.new("RGB", (8, 90))), "too small to learn from", "at least 16"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_photo_gets_a_message(kind: str, give: Give) -> None:
    name, content, what, remedy = BAD[kind]
    status, said = give(name, content)
    assert status == 400
    assert what in said and remedy in said
    assert "Traceback" not in said and ".tlora" not in said and str(Path.cwd()) not in said
    assert not draft_names()
    assert not STUDIO.exists() or not list(STUDIO.iterdir()), "nothing is left behind"


def test_200_megabytes_are_refused_before_they_are_sent(client: TestClient) -> None:
    answer = client.post(
        "/api/photo?name=a.jpg", content=b"", headers={"Content-Length": "200000000"}
    )
    assert answer.status_code == 413
    assert "larger than 64 MB" in answer.json()["what"] and answer.json()["do"]


def test_who_does_not_say_the_size_is_stopped_on_the_way(client: TestClient) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 3 * MOST:
            sent += 2**22
            yield bytes(2**22)

    answer = client.post("/api/photo?name=a.jpg", content=chunks())
    assert answer.status_code == 413 and "larger than 64 MB" in answer.json()["what"]
    assert not STUDIO.exists() or not list(STUDIO.iterdir())


def test_a_photo_is_taken_as_it_is_and_its_square_beside_it(give: Give) -> None:
    picture = Image.effect_noise((120, 80), 60).convert("RGB")
    status, _ = give("My Dog (1).JPG", png(picture))
    assert status == 200
    [name] = draft_names()
    draft = find_draft(name)
    assert draft is not None and (name, draft.crop) == ("my-dog-1", (20, 0, 80))
    assert (draft.folder / draft.original).read_bytes() == png(picture)
    with Image.open(draft.photo) as square:
        assert square.tobytes() == picture.crop((20, 0, 100, 80)).tobytes()
    assert give("my-dog-1.png", drawing())[0] == 200
    assert set(draft_names()) == {"my-dog-1", "my-dog-1-2"}, "nothing is overwritten"


def test_a_transparent_background_stays(give: Give) -> None:
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((200, 30, 30, 255), (10, 10, 50, 50))
    give("cut.png", png(picture))
    [name] = draft_names()
    draft = find_draft(name)
    assert draft is not None
    with Image.open(draft.photo) as square:
        assert square.mode == "RGBA" and square.getpixel((0, 0))[3] == 0


def test_an_upright_photo_is_shown_upright(client: TestClient, give: Give) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(buffer, "JPEG", exif=exif)
    give("phone.jpg", buffer.getvalue())
    draft = find_draft("phone")
    assert draft is not None and (draft.width, draft.height) == (40, 60)
    shown = client.get("/photo/phone?whole=1")
    assert Image.open(io.BytesIO(shown.content)).size == (40, 60)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no picture", "not a JPEG"), (bomb(), "million pixels"),
     (png(Image.new("L", (64, 64))), "the mask is empty")],
)  # fmt: skip
def test_a_bad_mask_gets_a_message(
    client: TestClient, draft: str, content: bytes, said: str
) -> None:
    answer = client.post(f"/api/{draft}/paint", content=content)
    assert answer.status_code == 400 and said in answer.json()["what"]


def test_values_that_are_none_get_a_message(client: TestClient, draft: str) -> None:
    bad = [
        b"no JSON", b"[1]", b'{"crop": [0, 0, 900]}', b'{"crop": "all"}', b'{"steps": -1}',
        b'{"steps": true}', b'{"card": "huge"}', b'{"recipe": "best"}', b'{"base": 7}',
        b'{"class_name": "a\\u0000b"}', b"[" * 50_000, b'{"steps": "' + b"9" * 200_000 + b'"}',
    ]  # fmt: skip
    for content in bad:
        answer = client.post(f"/api/{draft}/change", content=content)
        assert answer.status_code in (400, 413), content[:40]
        assert answer.json()["what"] and answer.json()["do"]
    found = find_draft(draft)
    assert found is not None and (found.steps, found.card) == (None, "")
