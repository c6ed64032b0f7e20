"""Tokens read as the text they stand for, in every script, and merge into words."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attrib.models.token_bytes import bytes_of, entries_named, shown
from attrib.models.tokenizing import Tokens, tokens_of
from attrib.models.tokens import decoded_pieces, read_ids, token_labels, token_text
from attrib.models.words import words_of
from tests.models.text_families import byte_level, metaspace, word_piece

TOKENIZERS = {"word_piece": word_piece, "byte_level": byte_level, "metaspace": metaspace}
TEXTS = {
    "english": ("It wasn't good at all!", ["It", "wasn't", "good", "at", "all", "!"]),
    "chinese": ("电影很好。", ["电", "影", "很", "好", "。"]),
    "arabic": ("الفيلم ليس جيدًا", ["الفيلم", "ليس", "جيدًا"]),
    "hindi": ("फिल्म अच्छी है", ["फिल्म", "अच्छी", "है"]),
    "emoji": ("so 😀👍🏽 ok", ["so", "😀", "👍🏽", "ok"]),
    "family": ("a 👩‍👩‍👧 b", ["a", "👩‍👩‍👧", "b"]),
    "marks": ("cafe\u0301 ok", ["cafe\u0301", "ok"]),
    "numbers": ("3.5 and 1,000...", ["3.5", "and", "1,000", "..."]),
    "lines": ("one\n\n  two\tthree", ["one", "two", "three"]),
    "markup": ("<b>x</b> & [y]", ["<", "b", ">", "x", "</", "b", ">", "&", "[", "y", "]"]),
}


def read(tokenizer: Any, inputs: Any) -> Tokens:
    return tokens_of(tokenizer, inputs, None, 10**6, "test")[0]


def merged(tokens: Tokens) -> list[str]:
    pairs = [
        (word, text) for word, text in zip(tokens.reading.words, tokens.reading.texts, strict=True) if word is not None
    ]
    return ["".join(text for _, text in group).strip() for _, group in itertools.groupby(pairs, lambda pair: pair[0])]


@pytest.mark.parametrize("script", list(TEXTS))
@pytest.mark.parametrize("kind", list(TOKENIZERS))
def test_words(kind: str, script: str) -> None:
    text, words = TEXTS[script]
    if script == "markup":
        words = ["<", "b", ">", "x", "<", "/", "b", ">", "&", "[", "y", "]"]
    tokens = read(TOKENIZERS[kind](), text)
    assert "".join(merged(tokens)) == "".join(words)
    if kind != "word_piece":  # unknown words are one token there
        assert merged(tokens) == words
    special = [i for i, word in enumerate(tokens.reading.words) if word is None]
    for i in special:
        assert not tokens.reading.texts[i].strip() or tokens.reading.texts[i] in ("[CLS]", "[SEP]", "<s>")


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@pytest.mark.parametrize("script", list(TEXTS))
def test_ids_read_like_their_text(kind: str, script: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    tokens = read(tokenizer, TEXTS[script][0])
    again = read(tokenizer, list(tokens.ids))
    assert merged(again) == merged(tokens)
    assert again.ids == tokens.ids


def test_word_piece_ids() -> None:
    tokens = read(word_piece(), "wonderful music")
    again = read(word_piece(), list(tokens.ids))
    assert again.reading.texts == ("[CLS]", *tokens.reading.texts[1:-1], "[SEP]")
    assert again.reading.words == tokens.reading.words


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip))
def test_the_texts_put_together_are_the_text(kind: str, text: str) -> None:
    tokens = read(TOKENIZERS[kind](), text)
    plain = [
        piece
        for token, piece in zip(tokens.ids, tokens.reading.texts, strict=True)
        if token not in TOKENIZERS[kind]().all_special_ids or piece not in ("<s>", "</s>")
    ]
    assert "".join(plain) == text
    assert len(tokens.reading.words) == len(tokens.ids)


def test_special_tokens_in_the_text_are_no_words() -> None:
    tokens = read(word_piece(), "good [MASK] film")
    assert tokens.reading.texts == ("[CLS]", "good", "[MASK]", "film", "[SEP]")
    assert tokens.reading.words == (None, 0, None, 1, None)


def test_unknown_words_show_what_was_written() -> None:
    tokens = read(word_piece(), "good 😀 film")
    assert tokens.reading.texts == ("[CLS]", "good", "😀", "film", "[SEP]")
    assert tokens.reading.words == (None, 0, 1, 2, None)


def test_vocabulary_entries_as_text() -> None:
    tokenizer = byte_level()
    assert token_text(tokenizer, tokenizer.encode(" good")[0]) == " good"
    pieces = tokenizer.encode("😀")
    assert len(pieces) > 1
    assert "\ufffd" not in token_text(tokenizer, pieces[0])
    space = metaspace()
    entry = next(token for entry, token in space.get_vocab().items() if entry.startswith("▁") and entry != "▁")
    assert token_text(space, entry) == " " + space.convert_ids_to_tokens(entry)[1:]


def test_words_of_nothing() -> None:
    assert words_of("") == []
    assert words_of(" \n") == [None, None]


def test_half_characters_are_shown_as_their_bytes() -> None:
    tokenizer = byte_level()
    ids = tokenizer("😀 é")["input_ids"]
    alone = [token_text(tokenizer, token) for token in ids]
    assert alone[:4] == ["‹F0›", "‹9F›", "‹98›", "‹80›"]
    assert token_labels(tokenizer, ids)[:4] == ["😀 ‹F0›", "😀 ‹9F›", "😀 ‹98›", "😀 ‹80›"]
    assert read_ids(tokenizer, ids).texts[:4] == ("😀", "", "", "")
    assert read_ids(tokenizer, [*ids[:2], *ids[4:]]).texts[:2] == ("‹F0›", "‹9F›")  # which nothing makes whole
    assert read_ids(tokenizer, ids[:3]).texts == ("‹F0›", "‹9F›", "‹98›")


@given(st.binary(min_size=1, max_size=8))
def test_bytes_that_are_shown_can_be_named(data: bytes) -> None:
    text = shown(data)
    assert "\ufffd" not in text or "\ufffd".encode() in data
    if "‹" in text:
        assert data in {bytes_of(entry) for entry in entries_named(text)}
    else:
        assert text.encode() == data


def test_bytes_of_vocabularies_of_characters() -> None:
    assert bytes_of("<0xE2>") == b"\xe2"
    assert "<0xE2>" in entries_named("‹E2›")
    assert bytes_of("▁日") is None
    assert entries_named("‹ZWSP›") == () == entries_named("plain")


@pytest.mark.parametrize("script", list(TEXTS))
def test_pieces_put_together_are_what_the_tokens_decode_to(script: str) -> None:
    for kind in ("byte_level", "word_piece"):
        tokenizer = TOKENIZERS[kind]()
        ids = tokenizer.encode(TEXTS[script][0], add_special_tokens=False)
        assert "".join(piece or "" for piece in decoded_pieces(tokenizer, ids)) == tokenizer.decode(ids)
