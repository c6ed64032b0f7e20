"""Logging in: right pairs come in, guesses wait for each other."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from app import logins

PAIRS = (("ada", "secret"), ("zoë", "päss"))


def apart(coroutine: Any) -> Any:
    """In a thread without an event loop of its own: a browser test before this one leaves one behind."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()


@pytest.mark.parametrize(
    ("name", "password", "right"),
    [
        ("ada", "secret", True), ("zoë", "päss", True), ("ada", "päss", False), ("ada", "", False), ("", "", False),
        ("eve", "", False), ("eve", "secret", False),
    ],
)  # fmt: skip
def test_a_name_needs_its_own_password(name: str, password: str, right: bool) -> None:
    assert apart(logins.checker(PAIRS, pause=0)(name, password)) is right


def test_a_guess_is_looked_at_after_the_pause_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    real = asyncio.sleep

    async def counted(seconds: float) -> None:
        paused.append(seconds)
        assert len(paused) == len(ended) + 1  # one at a time, whoever guesses
        await real(0)

    ended: list[bool] = []
    monkeypatch.setattr(asyncio, "sleep", counted)

    async def guesses() -> None:
        check = logins.checker(PAIRS, pause=7)

        async def one(password: str) -> None:
            ended.append(await check("ada", password))

        await asyncio.gather(*(one(str(i)) for i in range(5)), one("secret"))

    apart(guesses())
    assert paused == [7] * 5
    assert ended == [False] * 5 + [True]


def test_too_many_at_once_are_sent_away() -> None:
    async def guesses() -> list[Any]:
        check = logins.checker(PAIRS, pause=0)
        return await asyncio.gather(*(check("ada", "no") for _ in range(logins.WAITING + 5)), return_exceptions=True)

    found = apart(guesses())
    refused = [each for each in found if isinstance(each, HTTPException)]
    assert [each.status_code for each in refused] == [429] * 5
    assert found.count(False) == logins.WAITING
