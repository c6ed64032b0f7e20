"""Who may come in: names with passwords, and guessing them takes long."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence

from starlette.exceptions import HTTPException

PAUSE = 1.0  # seconds after a wrong guess, before anybody's next one is looked at
WAITING = 30  # attempts that may wait for their turn


def checker(pairs: Sequence[tuple[str, str]], pause: float = PAUSE) -> Callable[[str, str], Awaitable[bool]]:
    """Whether a name and a password are one of the pairs; one attempt at a time.

    Raises HTTPException (429) when too many wait. Who has come in is asked for nothing again.
    """
    known, turn, waiting = dict(pairs), asyncio.Lock(), 0

    async def right(name: str, password: str) -> bool:
        nonlocal waiting
        if waiting >= WAITING:
            raise HTTPException(429, "Too many people try to log in; try again in a minute.")
        waiting += 1
        try:
            async with turn:
                expected = known.get(name, "")
                found = hmac.compare_digest(password.encode(), expected.encode()) and name in known
                if not found:
                    await asyncio.sleep(pause)
                return found
        finally:
            waiting -= 1

    return right
