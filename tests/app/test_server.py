"""The server as programs meet it: named endpoints, limits, and what is switched off."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

NAME = "squeezenet1_1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError


@pytest.fixture(scope="module")
def client(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    opened = Client(
        server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("files")), analytics_enabled=False
    )
    yield opened
    opened.close()


def test_only_the_named_endpoints_are_there(client: Client) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/list_models", "/list_methods", "/predict_image", "/explain_image", "/report"}


def test_a_program_lists_predicts_and_explains(client: Client, cheetah: Path) -> None:
    assert client.predict(api_name="/list_models") == [NAME, "efficientnet-lite0"]
    methods = {row["name"]: row for row in client.predict(api_name="/list_methods")}
    assert "saliency" in methods
    assert methods["lrp"]["misleads"]
    photo = handle_file(str(cheetah))
    assert client.predict(photo, NAME, 3, api_name="/predict_image")[0]["label"] == "cheetah"
    settings = {"lrp": {"preset": "epsilon_plus"}}
    answer, files = client.predict(photo, NAME, ["saliency", "lrp"], "leopard", "", settings, api_name="/explain_image")
    assert answer["failures"] == {}
    assert answer["results"]["lrp"]["settings"]["preset"] == "epsilon_plus"
    assert answer["results"]["lrp"]["target"]["label"] == "leopard"
    ledger = answer["results"]["lrp"]["ledger"]
    assert sum(ledger.values()) == pytest.approx(answer["results"]["lrp"]["score"], rel=1e-4)
    assert sorted(Path(f).suffix for f in files) == [".html", ".json", ".json", ".png", ".png", ".safetensors",
                                                     ".safetensors", ".zip"]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["salliency"]}, "did you mean saliency"),
        ({"target": "cheetha"}, "cheetah"),
        ({"target": "1000"}, "1000"),
        ({"model": "torchvision:resnet50"}, "no model is called"),
        ({"methods": 3}, "a list of names"),
        ({"settings": [1]}, "settings: an object"),
        ({"settings": {"saliency": {"x": 1}}}, "'x'"),
        (
            {"methods": ["integrated_gradients"], "settings": {"integrated_gradients": {"n_steps": "inf"}}},
            "whole number",
        ),
        ({"target": "9" * 5000}, "no class '9999"),
    ],
)
def test_a_program_gets_one_clear_sentence(client: Client, cheetah: Path, changes: dict[str, Any], words: str) -> None:
    asked: dict[str, Any] = {"photo": handle_file(str(cheetah)), "model": NAME, "methods": ["saliency"], "target": "",
                             "versus": "", "settings": {}}  # fmt: skip
    with pytest.raises(AppError, match=words):
        client.predict(*{**asked, **changes}.values(), api_name="/explain_image")


def test_files_of_the_server_cannot_be_read(client: Client, server: Any) -> None:
    with pytest.raises((AppError, ValueError)):
        client.predict(
            {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}, NAME, 3, api_name="/predict_image"
        )
    for path in ("/etc/hostname", str(Path(__file__).resolve()), str(server.log)):
        assert httpx.get(f"{server.url}gradio_api/file={path}").status_code in (403, 404)


def test_what_gradio_leaves_open_is_closed(server: Any) -> None:
    for path in ("monitoring", "monitoring/summary", "gradio_api/monitoring", "gradio_api/monitoring/summary"):
        assert httpx.get(server.url + path).status_code in (403, 404), path
    assert httpx.get(server.url + "gradio_api/runs").status_code in (403, 404)
    config = httpx.get(server.url + "config").json()
    assert config["analytics_enabled"] is False
    assert config.get("run_history") is False
    assert not config.get("is_space")
    assert httpx.post(server.url + "gradio_api/api/list_models", json={"data": []}).status_code == 404


def test_an_upload_over_the_limit_is_refused(server: Any) -> None:
    big = {"files": ("big.png", b"x" * (2**20 + 1), "image/png")}
    assert httpx.post(server.url + "gradio_api/upload", files=big).status_code == 413


def test_the_page_names_no_other_host_to_load_from(server: Any) -> None:
    page = httpx.get(server.url).text
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]+)', page)
    assert [url for url in loaded if not url.startswith(server.url)] == []


def test_with_a_password_strangers_stay_out_and_nothing_stays_behind(start: Any, cheetah: Path) -> None:
    server = start(ATTRIB_AUTH="ada:secret", ATTRIB_MODELS=NAME)
    assert httpx.get(server.url + "config").status_code == 401
    assert httpx.post(server.url + "login", data={"username": "ada", "password": "no"}).status_code == 400
    opened = Client(server.url, verbose=False, auth=("ada", "secret"), download_files=False, analytics_enabled=False)
    opened.predict(handle_file(str(cheetah)), NAME, ["saliency"], "", "", {}, api_name="/explain_image")
    opened.close()
    assert any(path.is_file() for path in server.cache.rglob("*"))
    for _ in range(3):  # `make` and a terminal both tell it
        server.process.terminate()
        time.sleep(0.05)
    assert server.process.wait(60) == 0
    assert [path for path in server.cache.rglob("*") if path.is_file()] == []
    assert "secret" not in server.log.read_text()
