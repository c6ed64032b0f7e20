import subprocess
import sys

import pytest

from app import layout, main
from app.settings import Settings, SettingsError


def test_defaults_are_safe() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"
    assert settings.max_upload <= 50
    assert settings.queue <= 100


def test_everything_is_read() -> None:
    settings = Settings.from_environment(
        {
            "ATTRIB_HOST": "0.0.0.0",
            "ATTRIB_PORT": "80",
            "ATTRIB_AUTH": "ada:x:y, bob:z",
            "ATTRIB_MAX_UPLOAD": "5",
            "ATTRIB_CONCURRENCY": "2",
            "ATTRIB_QUEUE": "3",
            "ATTRIB_MODELS": "a, b,a",
            "ATTRIB_UPLOADS": "/c",
            "ATTRIB_TIMEOUT": "7",
            "ATTRIB_SESSIONS": "9",
        }
    )
    assert settings == Settings("0.0.0.0", 80, (("ada", "x:y"), ("bob", "z")), 5, 2, 3, ("a", "b"), "/c", 7.0, 9)


@pytest.mark.parametrize("name", ["PORT", "MAX_UPLOAD", "CONCURRENCY", "QUEUE", "TIMEOUT", "SESSIONS"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9999999"])
def test_a_number_out_of_range_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"ATTRIB_{name}='{value}'.*whole number from 1 to"):
        Settings.from_environment({f"ATTRIB_{name}": value})


@pytest.mark.parametrize("value", ["ada", "ada:", ":x", "ada:x,secret"])
def test_a_bad_pair_is_named_without_its_password(value: str) -> None:
    with pytest.raises(SettingsError, match="user:password") as caught:
        Settings.from_environment({"ATTRIB_AUTH": value})
    assert value not in str(caught.value)


def test_the_program_says_what_is_wrong_and_stops() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app"], env={"ATTRIB_PORT": "x"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "attrib: ATTRIB_PORT='x': give a whole number from 1 to 65535"


@pytest.mark.parametrize("value", ["*", "hf*x:*", "resnet*", "hf:*,timm:*"])
def test_a_pattern_that_would_allow_too_much_or_nothing_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match="ATTRIB_MODELS"):
        Settings.from_environment({"ATTRIB_MODELS": value})


def test_who_does_not_sit_at_the_machine_cannot_load_what_they_like() -> None:
    assert Settings().is_local
    assert not Settings(host="0.0.0.0").is_local
    assert not any(name.endswith("*") for name in layout.usual_models(Settings(host="0.0.0.0")))
    assert "hf:*" in layout.usual_models(Settings())


def test_a_port_that_is_taken_names_the_variable_that_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(settings: Settings) -> None:
        raise OSError("Cannot find empty port in range: 7860-7860. You can set the GRADIO_SERVER_PORT variable")

    monkeypatch.setattr(main, "serve", serve)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit, match="1"):
        main.main()
    told = capsys.readouterr().err
    assert "127.0.0.1:7860" in told and "ATTRIB_PORT" in told and "GRADIO" not in told
