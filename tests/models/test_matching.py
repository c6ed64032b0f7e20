"""Whether a tokenizer of the right size is the model's: what trained embeddings say of tokens that are one word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrib.errors import UnsupportedModel
from attrib.models.matching import check_vocabulary

WORDS, WIDTH = 700, 256


class Vocabulary:
    """Each word twice, with and without its leading space."""

    all_special_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return 2 * WORDS

    def get_vocab(self) -> dict[str, int]:
        return {f"{space}w{i}": 2 * i + bool(space) for i in range(WORDS) for space in ("", "Ġ")}

    def convert_ids_to_tokens(self, index: int) -> str:
        return ("Ġ" if index % 2 else "") + f"w{index // 2}"

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.convert_ids_to_tokens(i).replace("Ġ", " ") for i in ids)


def trained(seed: int = 0) -> Tensor:
    """Words in groups of related ones, and the two spellings of a word near each other; (2 · words, width)."""
    draw = torch.Generator().manual_seed(seed)
    groups = torch.randn(40, WIDTH, generator=draw)[torch.arange(WORDS) % 40]
    words = groups + torch.randn(WORDS, WIDTH, generator=draw)
    return (words[:, None] + 0.5 * torch.randn(WORDS, 2, WIDTH, generator=draw)).flatten(0, 1)


def check(table: Tensor) -> None:
    embeddings = nn.Embedding.from_pretrained(table)
    check_vocabulary(SimpleNamespace(get_input_embeddings=lambda: embeddings), Vocabulary(), "the model")


def test_the_models_own_tokenizer() -> None:
    check(trained())
    check(trained().bfloat16())


@pytest.mark.parametrize("by", [1, 7, 101])
def test_another_vocabulary_of_the_same_size(by: int) -> None:
    with pytest.raises(UnsupportedModel, match=r"700 pairs of tokens .* such as 'w0' and ' w0'"):
        check(trained().roll(by, 0))


def test_nothing_is_concluded_from_an_untrained_table() -> None:
    check(torch.randn(2 * WORDS, WIDTH, generator=torch.Generator().manual_seed(1)))


def test_a_frequency_that_all_rare_words_share_is_no_sign() -> None:
    """After a few steps of training rare tokens have moved together, and nothing else is known."""
    draw = torch.Generator().manual_seed(2)
    rare = torch.arange(2 * WORDS) % 2
    check(torch.randn(2 * WORDS, WIDTH, generator=draw) + 0.3 * rare[:, None] * torch.randn(WIDTH, generator=draw))
