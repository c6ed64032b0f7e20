"""Where the files that come with attrib are, in a checkout and in an installed package alike; and example photos."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from attrib.errors import ModelUnavailable

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "assets", _PACKAGE.parent / "assets")  # an installed wheel; a checkout

_OWN_PHOTOS = ("persian_cat", "siamese_cat", "tabby_cat", "egyptian_cat")
_GRADIO_PHOTOS = ("cheetah", "lion")


def asset(name: str) -> Path:
    """The path of the file assets/`name`. Raises ModelUnavailable when it is not there."""
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise ModelUnavailable(f"the file assets/{name} is missing from this installation; install attrib again")


def photos() -> dict[str, Path]:
    """Example photos by name. Those of gradio are there when gradio is installed."""
    found: dict[str, Path] = {}
    spec = find_spec("gradio")  # does not import it, which takes seconds
    for folder in () if spec is None else spec.submodule_search_locations or ():
        images = Path(folder) / "media_assets" / "images"
        found |= {name: path for name in _GRADIO_PHOTOS if (path := images / f"{name}.jpg").is_file()}
    return found | {name: asset(f"photos/{name}.jpg") for name in _OWN_PHOTOS}
