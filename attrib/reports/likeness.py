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
    """(side · side, 6) float16: colour and contrast of each cell of a JPEG; None where there is no picture.

    The mean of each channel, 0 to 255, and its standard deviation within the cell: stripes or letters may have the
    mean of any surface.
    """
    if not photo:
        return None
    with Image.open(io.BytesIO(photo)) as picture:
        channels = [np.asarray(c, dtype=np.float32) for c in picture.convert("RGB").split()]
    means = [_means_of_cells(c, side) for c in channels]
    squares = [_means_of_cells(c * c, side) for c in channels]
    contrasts = [np.sqrt(np.maximum(s - m * m, 0)) for m, s in zip(means, squares, strict=True)]
    return np.stack([*means, *contrasts], axis=-1).astype(np.float16).reshape(-1, 6)


def _means_of_cells(channel: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(channel).resize((side, side), Image.Resampling.BOX))


def cosines(cells: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(pictures, pictures): of their deviations from the mean of all, in the place.

    cells: (pictures, cells, what `cells_of` finds in each). place: bool, of cells.
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
