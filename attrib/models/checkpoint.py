"""A model that is explained in less memory, for more time."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from attrib.models.text import TextModel
from attrib.models.vision import VisionModel
from attrib.rules.recomputing import refuse_without_blocks

Model = TypeVar("Model", TextModel, VisionModel)


def checkpointed(model: Model) -> Model:
    """`model` with gradient checkpointing: its blocks keep their inputs only and run a second time in the backward.

    The same module and weights, the same values, ledger and coverage, at one more forward's time; memory grows with
    the number of blocks times the size of their input. The blocks are found as the members of the model's lists of
    modules of one kind. Methods that look inside a block (layers, sites, attention weights, rotary positions, DeepLIFT)
    give what they always give, and keep everything as always. Raises NotApplicable for a model without such lists.
    """
    refuse_without_blocks(model.module)
    return dataclasses.replace(model, recomputes=True, measured_bytes={})
