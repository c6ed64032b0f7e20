"""Getting a model that is not on this machine, with signs of life."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import attrib
from app.catalogue import Catalogue
from app.runs import Run
from app.watching import Progress, watched
from attrib.models import MODELS

log = logging.getLogger("attrib.app")

BUTTON = "Fetch this model"


def how_to_get(name: str) -> str:
    """What a visitor reads about a model that cannot be used yet."""
    if name in MODELS:
        size = f" ({MODELS[name].size / 1e6:.0f} MB)"
        return (
            f"{name} is not on this machine yet. Press “{BUTTON}”{size}, or run: attrib models pull {name}; "
            "either needs a network once."
        )
    return f"{name} is not loaded yet. Press “{BUTTON}”; what is not on this machine comes from its hub."


def fetch(catalogue: Catalogue, name: str, run: Run) -> Iterator[tuple[float, str]]:
    """Get and load a model; yields (fraction, message). Raises attrib.ModelUnavailable, attrib.Cancelled."""

    def work(on_progress: Progress) -> None:
        if name in MODELS and MODELS[name].source is not None:
            MODELS[name].loader(on_progress)
        catalogue[name]  # loads it

    try:
        yield from watched(run, work, lambda fraction, message: (fraction, message or f"fetching {name}"))
    except attrib.AttribError:
        raise
    except Exception as error:
        log.exception("fetching %s failed", name)
        raise attrib.ModelUnavailable(f"{name} could not be fetched; the server's log says why") from error
    finally:
        run.stop()
