"""A short pair of prompts that differ at one position, for models of any family, and where tensors keep a position."""

import attrib

CLEAN, CORRUPTED = [5, 9, 17, 23, 3, 8], [5, 21, 17, 23, 3, 8]
LAST = len(CLEAN) - 1
PAIR, ANSWER = attrib.pair([CLEAN], [CORRUPTED]), attrib.LogitDiff(12, 25, position=LAST)


def rows(*columns):
    """Of (1, tokens, width) the columns at a position."""
    return lambda tensor, p: tensor[0, p, slice(*columns) if columns else slice(None)]
