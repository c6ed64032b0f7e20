from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attrib
from app import answers, contrasts, downloads, explaining, offers, predictions
from app.answers import Answer, Step
from app.catalogue import Catalogue
from app.questions import Ask
from app.runs import Run, Runs
from attrib.render import Display

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue((NAME,))


def steps(ask: Ask, catalogue: Catalogue, timeout: float = 100) -> list[Step]:
    return list(explaining.explain(ask, catalogue, Run(timeout)))


def asked(cheetah: Path, /, **changes: Any) -> Ask:
    fields: dict[str, Any] = {
        "photo": str(cheetah),
        "model": NAME,
        "methods": (("saliency", {}), ("input_x_gradient", {})),
    }
    return Ask(**{**fields, **changes})


def test_results_arrive_one_by_one_and_equal_the_library_s(cheetah: Path, catalogue: Catalogue) -> None:
    found = steps(asked(cheetah, target="cheetah"), catalogue)
    assert [list(step.answer.results) for step in found if step.fresh] == [
        ["saliency"],
        ["saliency", "input_x_gradient"],
    ]
    assert found[-1].done
    assert found[-1].fraction == 1
    expected = attrib.explain(catalogue[NAME], cheetah, "saliency", "cheetah")
    assert torch.equal(found[-1].answer.results["saliency"].values, expected.values)


def test_predictions_are_plain_values(cheetah: Path, catalogue: Catalogue) -> None:
    found = predictions.predict(catalogue, str(cheetah), NAME)
    assert found[0]["label"] == "cheetah"
    assert len(found) == 5
    classes = predictions.class_choices(catalogue, NAME)
    assert ("cheetah (293)", 293) in classes
    assert len(classes) == 1000
    assert next(index for text, index in classes if "cup" in text) == 968  # what typing "cup" and Enter takes


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"photo": ""}, attrib.InputError, "choose a photo"),
        ({"photo": "/nowhere/secret/cat.png"}, attrib.InputError, "'cat.png'"),
        ({"methods": ()}, attrib.InputError, "at least one method"),
        ({"methods": (("saliencyy", {}),)}, attrib.UnknownName, "saliency"),
        ({"methods": (("saliency", {"x": 1}),)}, attrib.UnknownName, "'x'"),
        ({"model": "hf:some/thing"}, attrib.UnknownName, NAME),
        ({"target": 1000}, attrib.TargetError, "1000"),
        ({"target": "cheetha"}, attrib.TargetError, "cheetah"),
        ({"target": 3, "versus": 3}, attrib.TargetError, "same class"),
        ({"versus": 3, "versus_by": "x"}, attrib.UnknownName, "'x'"),
    ],
)
def test_a_wrong_question_is_one_clear_error(
    changes: dict[str, Any], error: type[Exception], words: str, cheetah: Path, catalogue: Catalogue
) -> None:
    with pytest.raises(error, match=words) as caught:
        steps(asked(cheetah, **changes), catalogue)
    assert "/nowhere" not in str(caught.value)


def test_two_targets_explain_the_difference_of_their_logits(cheetah: Path, catalogue: Catalogue) -> None:
    answer = steps(asked(cheetah, target=293, versus=281), catalogue)[-1].answer
    expected = attrib.explain(catalogue[NAME], cheetah, "input_x_gradient", attrib.LogitDiff(293, 281))
    assert torch.equal(answer.results["input_x_gradient"].values, expected.values)
    assert answers.target_name(answer) == "cheetah rather than tabby"
    strengths = asked(cheetah, versus=281, methods=(("saliency", {}),))
    assert steps(strengths, catalogue)[-1].answer.results["saliency"].signed


def test_two_maps_are_subtracted_in_shares_of_their_totals(cheetah: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    answer = steps(asked(cheetah, versus=281, versus_by="maps"), catalogue)[-1].answer
    result = answer.results["saliency"]
    first, second = (attrib.explain(catalogue[NAME], cheetah, "saliency", t).heatmap()[0] for t in (293, 281))
    assert np.allclose(result.heatmap()[0], first / first.sum() - second / second.sum(), atol=1e-7)
    assert result.signed
    assert result.values.min() < 0 < result.values.max()
    assert "Difference of two maps" in result.notes[0]
    assert attrib.Attribution.load(result.save(tmp_path)).target == result.target


def test_a_method_that_fails_does_not_stop_the_others(
    cheetah: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, question: object) -> None:
        raise ZeroDivisionError("internal detail")

    monkeypatch.setattr(attrib.METHODS["saliency"], "explain", fails)
    answer = steps(asked(cheetah), catalogue)[-1].answer
    assert list(answer.results) == ["input_x_gradient"]
    assert "internal detail" not in answer.failures["saliency"]


def test_cancel_stops_between_chunks(cheetah: Path, catalogue: Catalogue) -> None:
    runs = Runs(100)
    run = runs.begin("tab")
    work = explaining.explain(asked(cheetah, methods=(("occlusion", {"stride": 2}),)), catalogue, run)
    next(work)
    assert runs.cancel("tab")
    with pytest.raises(attrib.Cancelled):
        list(work)
    runs.end("tab", run)
    assert not runs.cancel("tab")


def test_a_run_ends_at_its_deadline(cheetah: Path, catalogue: Catalogue) -> None:
    with pytest.raises(attrib.Cancelled, match="limit of 0 seconds"):
        steps(asked(cheetah), catalogue, timeout=0)


def test_a_second_run_of_a_tab_replaces_the_first() -> None:
    runs = Runs(100)
    first, other, second = runs.begin("tab"), runs.begin("other"), runs.begin("tab")
    with pytest.raises(attrib.Cancelled):
        first.check()
    other.check()
    runs.end("tab", first)  # late: it must not end the second
    second.check()
    assert runs.cancel("tab")


def test_runs_of_a_program_go_on_beside_each_other_and_stop_together() -> None:
    runs = Runs(100)
    first, second = runs.begin("program", alone=False), runs.begin("program", alone=False)
    first.check()
    runs.end("program", first)
    second.check()
    assert runs.cancel("program")
    with pytest.raises(attrib.Cancelled):
        second.check()
    runs.end("program", second)
    assert not runs.cancel("program")


def test_an_ascent_shows_before_and_after(cheetah: Path, catalogue: Catalogue) -> None:
    settings = {"steps": 2}
    answer = steps(asked(cheetah, methods=((contrasts.ASCENT, settings),)), catalogue)[-1].answer
    assert answer.slider is not None
    before, after = answer.slider
    assert before.shape == after.shape
    assert 0.5 < np.abs(before.astype(int) - after.astype(int)).mean() < 80
    plain = steps(asked(cheetah, methods=((contrasts.ASCENT, {}),)), catalogue)[-1].answer
    assert plain.slider is None


def test_files_hold_everything(cheetah: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    import json
    import zipfile

    from safetensors.torch import load_file

    answer = steps(asked(cheetah), catalogue)[-1].answer
    paths = [Path(p) for p in downloads.write(answer, Display(), tmp_path)]
    endings = [path.suffix for path in paths]
    assert {end: endings.count(end) for end in endings} == {
        ".zip": 1,
        ".html": 1,
        ".png": 2,
        ".safetensors": 2,
        ".json": 2,
    }
    raw = next(p for p in paths if p.name == "cheetah.saliency.safetensors")
    assert torch.equal(load_file(raw)["values"], answer.results["saliency"].values)
    document = json.loads(next(p for p in paths if p.name == "cheetah.saliency.json").read_text())
    assert document["provenance"]["weights_hash"] == catalogue[NAME].weights_hash
    with zipfile.ZipFile(paths[0]) as archive:
        assert sorted(archive.namelist()) == sorted(path.name for path in paths[1:])


def test_names_of_files_cannot_leave_their_folder(cheetah: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    answer = steps(asked(cheetah, methods=(("saliency", {}),)), catalogue)[-1].answer
    hostile = Answer(answer.results, photo_name="../../../etc/x<script>")
    assert all(Path(p).resolve().is_relative_to(tmp_path) for p in downloads.write(hostile, Display(), tmp_path))


def test_every_method_has_a_card_to_show() -> None:
    listed = offers.list_methods()
    assert {row["name"] for row in listed} == set(attrib.METHODS)
    pairs = {row["name"]: row["settings"]["pair"] for row in listed if "pair" in row["settings"]}
    assert set(pairs) == {"relp", "attribution_patching", "activation_patching"}
    assert {c["name"] for c in pairs["relp"]} == {"mode", "attention"}  # the settings that /patch takes
    assert all(row["misleads"] and row["title"] and row["cost"] for row in listed)
    assert set(offers.preselected()) <= {row["name"] for row in listed}
    assert len(offers.preselected()) >= 4
