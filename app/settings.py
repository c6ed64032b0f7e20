"""What the environment says about the app, read once at its start.

| variable | meaning | default |
|---|---|---|
| ATTRIB_HOST | address to listen on | 127.0.0.1 |
| ATTRIB_PORT | port to listen on | 7860 |
| ATTRIB_AUTH | user:password pairs, separated by commas; none: everybody may use it | |
| ATTRIB_MAX_UPLOAD | largest file of an upload, and largest request of any other kind, in MB | 20 |
| ATTRIB_CONCURRENCY | explanations that run at the same time | 1 |
| ATTRIB_QUEUE | explanations that may wait; one more is told that the app is busy (photos and predictions go on) | 16 |
| ATTRIB_MODELS | models on offer, separated by commas, the first one preselected; `hf:*`, `hf:/models/*`, `timm:*`: \
every name that begins so may be typed, and is then loaded from that hub or folder | all that attrib knows by name; \
at a loopback address also `torchvision:*`, `timm:*` and `hf:*` |
| ATTRIB_UPLOADS | folder for uploads and files to download; emptied at the end | a temporary folder |
| ATTRIB_TIMEOUT | seconds after which one run is stopped | 600 |
| ATTRIB_SESSIONS | browser tabs whose last results are kept in memory | 20 |
| ATTRIB_REPORTS | folder of the reports, which everybody who may use the app can see | at a loopback address the \
user's data folder; elsewhere none, and no Reports tab |
| ATTRIB_REPORT_INPUTS | pictures or texts in one report | 1000 |
| ATTRIB_REPORT_UPLOAD | all uploads of one report together, in MB | 500 |
| ATTRIB_REPORT_DISK | all reports together, in MB | 5000 |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import platformdirs


class SettingsError(ValueError):
    """A variable of the environment that makes no sense; the message names it and what would."""


@dataclass(frozen=True)
class Settings:
    """See the table above."""

    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[tuple[str, str], ...] = ()
    max_upload: int = 20  # MB
    concurrency: int = 1
    queue: int = 16
    models: tuple[str, ...] = ()
    uploads: str | None = None
    timeout: float = 600.0  # seconds
    sessions: int = 20
    reports: str | None = None
    report_inputs: int = 1000
    report_upload: int = 500  # MB
    report_disk: int = 5000  # MB

    @property
    def is_local(self) -> bool:
        """Whether nobody but users of this machine reaches the server."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def reports_folder(self) -> str | None:
        """Where reports live; None: nowhere. Strangers do not see each other's uploads unless somebody wants it so."""
        usual = os.path.join(platformdirs.user_data_dir("attrib", appauthor=False), "reports")
        return self.reports or (usual if self.is_local else None)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Raises SettingsError naming the variable, its value and what it may be."""
        env = os.environ if environment is None else environment
        return cls(
            host=env.get("ATTRIB_HOST", "").strip() or cls.host,
            port=_whole(env, "ATTRIB_PORT", cls.port, 1, 65535),
            auth=_pairs(env.get("ATTRIB_AUTH", "")),
            max_upload=_whole(env, "ATTRIB_MAX_UPLOAD", cls.max_upload, 1, 1000),
            concurrency=_whole(env, "ATTRIB_CONCURRENCY", cls.concurrency, 1, 64),
            queue=_whole(env, "ATTRIB_QUEUE", cls.queue, 1, 10_000),
            models=_models(env.get("ATTRIB_MODELS", "")),
            uploads=env.get("ATTRIB_UPLOADS", "").strip() or None,
            timeout=_whole(env, "ATTRIB_TIMEOUT", int(cls.timeout), 1, 86_400),
            sessions=_whole(env, "ATTRIB_SESSIONS", cls.sessions, 1, 10_000),
            reports=env.get("ATTRIB_REPORTS", "").strip() or None,
            report_inputs=_whole(env, "ATTRIB_REPORT_INPUTS", cls.report_inputs, 1, 100_000),
            report_upload=_whole(env, "ATTRIB_REPORT_UPLOAD", cls.report_upload, 1, 100_000),
            report_disk=_whole(env, "ATTRIB_REPORT_DISK", cls.report_disk, 1, 1_000_000),
        )


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SettingsError(f"{name}={text!r}: give a whole number from {low} to {high}")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _models(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if "*" in name[:-1] or (name.endswith("*") and not name.partition(":")[1]):
            raise SettingsError(f"ATTRIB_MODELS: {name!r}: a pattern is a hub and the beginning of a name, as hf:*")
    if names and all(name.endswith("*") for name in names):
        raise SettingsError(f"ATTRIB_MODELS={text!r}: name at least one model beside the patterns")
    return names


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for number, part in enumerate(_names(text), start=1):
        user, colon, password = part.partition(":")
        if not (user and colon and password):
            # the value itself may hold a password: it is not repeated
            raise SettingsError(f"ATTRIB_AUTH: entry {number} is not of the form user:password")
        pairs.append((user, password))
    return tuple(pairs)
