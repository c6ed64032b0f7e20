"""Weights in the format of the transformers library: safetensors only, all of them, and no code of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from torch import nn

from attrib.errors import UnsupportedModel
from attrib.models.hubs import unavailable

_SHOWN = 3


@contextlib.contextmanager
def reading(full_name: str, kind: str) -> Iterator[None]:
    """Inside, what transformers raises about the files of `full_name` becomes a sentence; kind: what they are not."""
    try:
        with quiet():
            yield
    except (OSError, SafetensorError, UnpicklingError) as error:
        raise unavailable(full_name, error) from error
    except UnsupportedModel:
        raise
    except (ValueError, KeyError, ImportError, TypeError, RuntimeError) as error:
        raise UnsupportedModel(f"{full_name} is not {kind} that can be loaded: {error}") from error


def with_weights(loader: Any, source: str, full_name: str, **options: Any) -> nn.Module:
    """The module that transformers' `loader` makes of `source`, frozen; every weight is from its files.

    Without this check transformers draws what is missing at random and says so in a log.
    """
    options |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    module, found = loader.from_pretrained(source, trust_remote_code=False, **options)
    wrong = sorted(found["missing_keys"]) + sorted(str(key[0]) for key in found["mismatched_keys"])
    if wrong:
        raise UnsupportedModel(
            f"the files of {full_name} do not hold the weights of {type(module).__name__}: {len(wrong)} are missing or "
            f"of another shape, such as {', '.join(wrong[:_SHOWN])}; they would be random"
        )
    trained: nn.Module = module.eval().requires_grad_(False)
    return trained


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and advice of transformers, which mean nothing to who asked for an explanation."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
