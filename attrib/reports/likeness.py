"""Do the pictures of a cluster share what is in one place of them: a watermark, a tag, a border?

That a network's maps form clusters is no alarm: where the object may be left or right, so do the maps. A shortcut is in
the pictures: in the place at which the cluster looks they deviate from their class in the same way, and pictures drawn
at random do not.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

DRAWS = 999  # random sets of pictures; a cluster that beats them all has p = 1/1000


def cells_of(photo: bytes, side: int) -> np.ndarray | None:
    """(side · side, 3) float16: the mean colour of each cell of a JPEG, 0 to 255; None where there is no picture."""
    if not photo:
        return None
    with Image.open(io.BytesIO(photo)) as picture:
        small = picture.convert("RGB").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float16).reshape(-1, 3)


def cosines(cells: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(pictures, pictures): of their deviations from the mean of all, in the place.

    cells: (pictures, cells, 3). place: bool, of cells.
    """
    deviations = (cells - cells.mean(0))[:, place].reshape(len(cells), -1)
    directions = deviations / np.maximum(np.linalg.norm(deviations, axis=1, keepdims=True), 1e-9)
    return np.asarray(directions @ directions.T)


def likeness(found: np.ndarray, members: np.ndarray) -> float:
    """How alike the members are: the mean cosine of two of them; 0 is what pictures have that share nothing."""
    return float(_means(found, members[None].astype(np.float64))[0])


def by_chance(found: np.ndarray, number: int, seed: int = 0) -> float:
    """The likeness of the most alike of DRAWS sets of so many pictures drawn at random."""
    lots = np.random.default_rng(seed).random((DRAWS, len(found)))
    return float(_means(found, (lots.argsort(1) < number).astype(np.float64)).max())


def _means(found: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Of the pairs of each set; 0 of a set of one."""
    numbers = sets.sum(1)
    sums = ((sets @ found) * sets).sum(1) - sets @ np.diag(found)
    return np.asarray(sums / np.maximum(numbers * (numbers - 1), 1))
