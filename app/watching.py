"""Work in a thread of its own, watched from a handler that tells the page how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from app.runs import Run

TICK = 0.4  # seconds between two signs of life
Progress = Callable[..., None]  # (fraction, message=""); raises attrib.Cancelled once the run shall stop
Found = TypeVar("Found")
Shown = TypeVar("Shown")


def watched(
    run: Run, work: Callable[[Progress], Found], shown: Callable[[float, str], Shown]
) -> Generator[Shown, None, Found]:
    """Run work(on_progress) and return what it returns; yields shown(fraction, message) every TICK until then.

    What `work` raises is raised here. The work goes on when nobody listens any more: stop the run.
    """
    done, latest = threading.Event(), (0.0, "")
    found: list[Any] = []
    raised: list[BaseException] = []

    def on_progress(fraction: float, message: str = "") -> None:
        nonlocal latest
        run.check()
        latest = (fraction, message)

    def target() -> None:
        try:
            run.check()
            found.append(work(on_progress))
        except BaseException as error:  # it belongs to who watches
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=target, name="attrib-work", daemon=True).start()
    while not done.wait(TICK):
        yield shown(*latest)
    if raised:
        raise raised[0]
    return found[0]  # type: ignore[no-any-return]  # a list of one Found
