"""When so many wait that one more is refused: that is said, and whatever is quick goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect

NAME = "squeezenet1_1"
ENDLESS = {"occlusion": {"window": 1, "stride": 1}}
LONG = 60_000  # ms


def asked(url: str, photo: str, name: str, *rest: object) -> httpx.Response:
    data = [{"path": photo, "meta": {"_type": "gradio.FileData"}}, NAME, *rest]
    return httpx.post(f"{url}gradio_api/call/{name}", json={"data": data}, timeout=60)


def test_a_full_queue_is_told_and_predictions_go_on(page: Page, start: Any, cheetah: Path) -> None:
    url = start(ATTRIB_MODELS=NAME, ATTRIB_QUEUE="1").url
    uploaded = httpx.post(f"{url}gradio_api/upload", files={"files": ("c.jpg", cheetah.read_bytes(), "image/jpeg")})
    photo = uploaded.json()[0]
    answers = []
    while not answers or answers[-1].status_code == 200:  # one runs, one waits: the third or fourth is refused
        answers.append(asked(url, photo, "explain_image", ["occlusion"], "", "", ENDLESS))
        assert len(answers) < 10
    assert answers[-1].status_code == 503
    assert "busy" in answers[-1].json()["detail"]
    assert asked(url, photo, "predict_image", 1).status_code == 200
    page.goto(f"{url}?photo=lion")
    expect(page.locator("#at-predictions button")).to_have_count(5, timeout=LONG)
    page.locator("#at-explain").click()
    expect(page.locator("#at-status [role=alert]")).to_contain_text("it is busy", timeout=LONG)
    expect(page.locator("#at-explain")).to_be_enabled()
