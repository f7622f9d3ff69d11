"""Markdown as a page: tables, pictures, and nothing that strangers could have it load or run."""

from __future__ import annotations

from pathlib import Path

from html_pages import Page
from PIL import Image

from tlora_cli.foundation.pages.markdown import markdown_page

TEXT = """---
license: mit
---

# A dog

| | prompt |
|---|---|
| ![a dog](images/a.png) | a dog<br>seed 3 |

![gone](images/b.png) ![far](https://example.org/c.png)

<script>alert(1)</script> [bad](javascript:alert(1)) [good](https://example.org)

```bash
tlora sample
```
"""


def test_a_text_becomes_a_page_with_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "a.png")
    text = markdown_page(TEXT, tmp_path, "A <card>")
    page = Page(text.replace("<br>", " "))
    assert page.open == []
    [shown] = page.pictures
    assert shown.startswith("data:image/")
    assert 'alt="a dog"' in text and "gone" in page.words and "far" in page.words
    assert "license: mit" not in page.words
    assert "a dog<br>seed 3" in text
    assert "<script>" not in text and "<script>alert(1)</script>" in page.words
    assert page.addresses == [shown, "https://example.org"], "javascript: is no link"
    assert "<title>A &lt;card&gt;</title>" in text
    assert "default-src 'none'" in text
