"""Where inputs come from, and what is wrong with some of them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import attrib
from attrib.reports import Report, spec_of
from attrib.reports.items import Item, count, items
from tests.reports.conftest import write_pictures

Make = Callable[..., Report]

pytestmark = pytest.mark.usefixtures("without_pages")


def read(inputs: Any, kind: str, stdin: bytes | None = None, **fields: Any) -> list[Item]:
    spec = spec_of({"inputs": str(inputs), "models": "m", "methods": "lrp"} | fields)
    found = list(items(spec, kind, None if stdin is None else io.BytesIO(stdin)))
    assert count(spec, kind) == (None if str(inputs) == "-" else len(found))
    return found


def told(found: list[Item]) -> list[tuple[str, str | None, Any]]:
    return [(item.input.name, item.error or item.input.text, item.input.target) for item in found]


def test_folders_are_read_in_order_whatever_the_names_are(tmp_path: Path) -> None:
    names = ["b c.png", "a/same.png", "z/same.png", "ä ‮ 'quotes\" <b>.png", "line\nbreak.png", "..png.png"]
    write_pictures(tmp_path, names)
    (tmp_path / "bytes\udcff.png").write_bytes((tmp_path / "b c.png").read_bytes())
    (tmp_path / "notes.md").write_text("no picture")
    found = read(tmp_path, "image")
    assert [item.input.position for item in found] == list(range(7))
    assert {item.input.name for item in found} == {*names, r"bytes\udcff.png"}
    assert len({item.id for item in found}) == 6  # the same picture under two names is one item
    assert all(item.id.isalnum() and len(item.id) == 24 for item in found)
    assert [item.id for item in read(tmp_path, "image")] == [item.id for item in found]
    assert len(read(f"{tmp_path}/**/same.*", "image")) == 2


def test_the_reports_own_pictures_are_no_inputs(make: Make, photos_of_noise: Path) -> None:
    first = make(photos_of_noise, "photos/report", ("saliency",))
    again = make(photos_of_noise, "photos/report", ("saliency",))
    assert first.counts == again.counts
    assert first.counts["inputs"] == 7


CSV = b'id,words,class\n1,"a, b",cat\n2,one cell too many,dog,x\n=cmd,"two\nlines",\n4,"   ",1\n5,\xff,1\n'


def test_tables_lines_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + CSV)
    columns = {"text": "words", "target": "class"}
    expected = [
        ("1", "a, b", "cat"),
        ("line 3", "the row has 4 cells where 3 are needed", None),
        ("=cmd", "two\nlines", None),
        ("4", "the text is empty", "1"),
        ("5", "the text is not UTF-8", "1"),
    ]
    assert told(read(tmp_path / "t.csv", "text", columns=columns)) == expected
    assert told(read("-", "text", CSV, columns=columns, format="csv")) == expected
    lines = [{"text": "x", "target": 2}, {"text": 7}, {"text": "y" * 300_000}]
    (tmp_path / "t.jsonl").write_text("\n".join([*map(json.dumps, lines), "{broken", "[]", ""]))
    (_, text, target), *wrong = told(read(tmp_path / "t.jsonl", "text"))
    assert (text, target) == ("x", 2)
    for (_, error, _), why in zip(wrong, ("int 7, not text", "300,000", "not JSON", "holds list"), strict=True):
        assert why in str(error)
    table = pa.table({"words": ["p", None, "q"], "class": [1.0, float("nan"), None]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = told(read(tmp_path / "t.parquet", "text", columns=columns))
    assert found == [("row 0", "p", 1), ("row 1", "the text is NoneType None, not text", None), ("row 2", "q", None)]
    assert told(read("-", "text", b"one\n\n two \n"))[0][:2] == ("line 1", "one")
    assert [item.input.text for item in read("-", "text", b"one\n\ntwo\n", limit=1)] == ["one"]


def test_a_table_of_images_and_its_root(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["table/a.png", "secret.png"])
    paths = ["a.png", "../secret.png", "not/there.png", "", "/dev/zero", "\0"]
    (tmp_path / "table/t.jsonl").write_text("\n".join(json.dumps({"path": path}) for path in paths))
    inside, outside, missing, empty, device, null = read(tmp_path / "table/t.jsonl", "image")
    assert inside.data == (tmp_path / "table/a.png").read_bytes() and outside.data is not None
    for item, why in ((missing, "not there"), (empty, "is empty"), (device, "not a file"), (null, "not there")):
        assert why in str(item.error)
    assert "lies outside" in str(read(tmp_path / "table/t.jsonl", "image", root=str(tmp_path / "table"))[1].error)


def test_where_inputs_come_from_is_told_below_their_root(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a/one.png", "a/b/two.png"])
    (tmp_path / "t.csv").write_text("path\na/one.png\na/none.png\n")
    for inputs, expected in (
        ("a", ["b/two.png", "one.png"]),
        ("a/one.png", ["one.png"]),
        ("a/*/*.png", ["b/two.png"]),
        ("*/one.png", ["a/one.png"]),
        ("t.csv", ["t.csv, line 2", "t.csv, line 3"]),
    ):
        found = read(tmp_path / inputs, "image")
        assert [item.input.source for item in found] == expected
        assert not [item for item in found if str(tmp_path) in f"{item.input.record()} {item.error}"]
    assert found[1].error == "'a/none.png' is not there"


def test_hugging_face_data_sets_on_disk(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, "png")
    pictures = [{"bytes": buffer.getvalue(), "path": "zero.png"}, {"bytes": None, "path": None}]
    table = pa.table({"image": pictures, "label": [3, 4]})
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        with pa.ipc.new_stream(tmp_path / split / "data-00000-of-00001.arrow", table.schema) as stream:
            stream.write_table(table)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    found = read(tmp_path, "image", columns={"target": "label"})
    assert [item.input.target for item in found] == [3, 4, 3, 4]
    assert found[0].data == buffer.getvalue() and "is empty" in str(found[1].error)
    assert len(read(tmp_path / "train", "image")) == 2


def test_nothing_to_explain_is_said_before_anything_is_written(make: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("path\n")
    (tmp_path / "other.csv").write_text("file\nx.png\n")
    (tmp_path / "thing.xyz").write_text("x")
    for inputs, why in (
        ("empty", "holds no images"),
        ("*.jpg", "holds no images"),
        ("empty.csv", "is empty: a first row"),
        ("header.csv", "holds no inputs"),
        ("other.csv", r"no column 'path' or 'image'.*its columns are 'file'.*--path-column"),
        ("thing.xyz", "cannot tell what"),
        ("nowhere", "no file or folder"),
    ):
        with pytest.raises(attrib.InputError, match=why):
            make(tmp_path / inputs)
        assert not (tmp_path / "report").exists()


def test_inputs_that_fail_become_rows_with_their_reason(make: Make, photos_of_noise: Path) -> None:
    (photos_of_noise / "cut.png").write_bytes((photos_of_noise / "0.png").read_bytes()[:100])
    (photos_of_noise / "empty.png").write_bytes(b"")
    (photos_of_noise / "text.png").write_text("=cmd|' /C calc'!A0")
    os.symlink("nowhere", photos_of_noise / "dangling.png")
    made = make(photos_of_noise)
    assert made.counts == {"inputs": 11, "items": 11, "rows": 44, "failed_inputs": 4, "failed_rows": 16}
    assert made.failed == 4
    reasons = {row.name: row.error for row in made.failures()}
    for name, why in (("cut", "damaged"), ("empty", "0 bytes"), ("text", "not an image"), ("dangling", "not there")):
        assert why in str(reasons[f"{name}.png"])


def test_a_target_that_the_model_lacks_fails_for_its_input_only(make: Make, photos_of_noise: Path) -> None:
    rows = [{"path": str(photos_of_noise / "0.png"), "target": target} for target in ("cat", "cow", 2, 7, None)]
    made = make(rows, targets="item")
    errors = [row.error for row in made.rows() if row.method == "lrp"]
    assert [error is None for error in errors] == [True, False, True, False, True]
    assert "no class 'cow'" in str(errors[1]) and "out of range" in str(errors[3])
    assert [row.target_index for row in made.rows() if row.method == "lrp"][:3] == [0, None, 2]


def test_formulas_come_out_harmless(make: Make, photos_of_noise: Path) -> None:
    path = str(photos_of_noise / "0.png")
    made = make([{"path": path, "id": name} for name in ("=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "\t=1", "fine")])
    import csv

    with (made.folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["name"] for row in rows} == {"'=cmd|' /C calc'!A0", "'@SUM(1)", "'+1", "'-1", "'\t=1", "fine"}
    cells = [cell for row in rows for name, cell in row.items() if name not in ("delta", "score")]
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in cells)
