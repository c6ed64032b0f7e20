"""The same contracts for methods that compare two prompts: nothing left behind, one answer, whole results."""

from __future__ import annotations

import copy
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from contract_nets import PAIR_METHODS, cheap, language_model, model, pictures, prompts, state_of, worst
from scipy.stats import pearsonr
from test_results import test_is_a_value, test_is_described  # noqa: F401  # collected here for these methods too

import attrib

CLOSE = 1e-9
ANSWERS = attrib.LogitDiff("w7", "w8")

pytestmark = pytest.mark.parametrize("name", PAIR_METHODS)


class Raising(torch.autograd.Function):
    """An operation whose backward fails."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ZeroDivisionError("backward failed")


def failing(module, args, output):
    raise ZeroDivisionError("forward failed")


def failing_backward(module, args, output):
    output.logits = Raising.apply(output.logits)
    return output


def test_shapes(name):
    result = attrib.explain(language_model(), prompts(), cheap(name), ANSWERS)
    assert result.kind == "sites" and len(result) == 3 and result.score.shape == (3,)
    assert result.values.shape == (3, len(result.sites), 6)
    assert result.values.isfinite().all() and not result.values.requires_grad and not result.score.requires_grad
    assert [len(texts) for texts in result.token_texts] == [len(texts) for texts in result.corrupted_texts] == [6, 5, 4]
    assert (result.values != 0).any() and (result.values[1, :, 5:] == 0).all() and (result.values[2, :, 4:] == 0).all()
    assert result.parts.keys() >= {"metric_clean", "metric_corrupted"}
    torch.testing.assert_close(result.parts["metric_clean"] - result.parts["metric_corrupted"], result.score)
    with pytest.raises(attrib.InputError, match="no heatmap"):
        result.heatmap()


def test_the_clean_run_decides_what_is_predicted(name):
    subject = language_model()
    result = attrib.explain(subject, prompts(), cheap(name))
    assert [t["index"] for t in result.target] == [p[0].index for p in subject.predict(list(prompts().clean))]


def test_saved_and_loaded_again(name, tmp_path):
    result = attrib.explain(language_model(), prompts(2), cheap(name), ANSWERS)
    loaded = attrib.Attribution.load(result.save(tmp_path / "result"))
    for field in dataclasses.fields(attrib.Attribution):
        saved, found = getattr(result, field.name), getattr(loaded, field.name)
        if isinstance(saved, torch.Tensor):
            assert torch.equal(saved, found) and saved.dtype == found.dtype
        elif field.name == "parts":
            assert saved.keys() == found.keys() and all(torch.equal(saved[k], found[k]) for k in saved)
        else:
            assert saved == found, field.name
    assert loaded.top(3) == result.top(3)


def test_provenance_is_plain(name):
    result = attrib.explain(language_model(), prompts(2), cheap(name), ANSWERS)
    document = dataclasses.asdict(result.provenance)
    assert json.loads(json.dumps(document, allow_nan=False))["method"] == name
    assert set(document["settings"]) >= {f.name for f in dataclasses.fields(cheap(name))}
    assert [len(h) for h in document["input_hashes"]] == [64, 64] and len(set(document["input_hashes"])) == 2


def test_other_inputs_and_models(name):
    with pytest.raises(attrib.NotApplicable, match=r"attrib\.pair\(clean, corrupted\)"):
        attrib.explain(language_model(), "w4 w5", name)
    with pytest.raises(attrib.NotApplicable, match="image"):
        attrib.explain(model(), prompts(), name)
    with pytest.raises(attrib.NotApplicable, match="does not apply to image models"):
        attrib.explain(model(), pictures(), name)
    with pytest.raises(attrib.NotApplicable, match="does not apply to sound models"):
        attrib.explain(SimpleNamespace(kind="sound", name="ear"), "w4", name)
    with pytest.raises(attrib.NotApplicable, match="does not compare two prompts"):
        attrib.explain(language_model(), prompts(), "saliency")


def test_after_success(name):
    subject = language_model()
    subject.module.train()
    subject.module.lm_head.weight.grad = torch.ones_like(subject.module.lm_head.weight)
    before = state_of(subject.module)
    attrib.explain(subject, prompts(), cheap(name), ANSWERS)
    assert state_of(subject.module) == before


def test_after_errors(name):
    subject = language_model()
    before = state_of(subject.module)
    same = attrib.LogitDiff("w7", "w7")
    for target in (99, "cat", "w7 w8", [0, 1], same, lambda outputs: outputs):
        with pytest.raises(attrib.TargetError):
            attrib.explain(subject, prompts(), cheap(name), target)
        assert state_of(subject.module) == before


def test_after_a_model_that_raises(name):
    for hook in (failing, failing_backward):
        subject = language_model()
        attrib.explain(subject, prompts(), cheap(name), ANSWERS)
        subject.module.register_forward_hook(hook)
        before = state_of(subject.module)
        with suppress(attrib.UnsupportedModel):  # methods of forwards only never meet the backward
            attrib.explain(subject, prompts(), cheap(name), ANSWERS)
            assert hook is failing_backward
        assert state_of(subject.module) == before


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_after_cancelling(name, calls):
    subject, reports = language_model(), []

    def report(fraction, message):
        assert 0 <= fraction <= 1 and message == name
        reports.append(fraction)
        if len(reports) > calls:
            raise attrib.Cancelled("enough")

    before = state_of(subject.module)
    with pytest.raises(attrib.Cancelled):
        attrib.explain(subject, prompts(), cheap(name), ANSWERS, on_progress=report, max_memory=1)
    assert len(reports) == calls + 1
    assert state_of(subject.module) == before


def test_progress_never_goes_back_and_ends_at_one(name):
    reports = []
    attrib.explain(language_model(), prompts(), cheap(name), ANSWERS, on_progress=lambda part, _: reports.append(part))
    assert reports == sorted(reports) and reports[0] == 0 and reports[-1] == 1


def test_twice_in_threads_and_in_train_mode(name):
    subject = language_model()
    expected = attrib.explain(subject, prompts(), cheap(name), ANSWERS)
    torch.manual_seed(99)  # nobody may draw from the global generator
    subject.module.train()
    cold = language_model()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(attrib.explain, m, prompts(), cheap(name), ANSWERS) for m in (subject, cold) for _ in "abc"]
        for job in jobs:
            assert torch.equal(job.result().values, expected.values)
            assert torch.equal(job.result().score, expected.score)


def test_in_a_batch_as_alone(name):
    subject, given = language_model(), prompts()
    targets = [attrib.LogitDiff(7, 8), attrib.LogitDiff(9, 10), attrib.LogitDiff(11, 12)]
    together = attrib.explain(subject, given, cheap(name), targets)
    for i, (clean, corrupted) in enumerate(zip(given.clean, given.corrupted, strict=True)):
        alone = attrib.explain(subject, attrib.pair(clean, corrupted), cheap(name), targets[i])
        assert worst(together.values[i, :, : alone.values.shape[2]], alone.values[0]) < CLOSE
        assert worst(together.score[i : i + 1], alone.score) < CLOSE


@pytest.mark.parametrize("target", [None, [4, 5, 6, 7, 8], ANSWERS, attrib.LogProb(9)], ids=str)
def test_at_any_chunk_size(name, target):
    subject, given = language_model(), prompts(5)
    whole = attrib.explain(subject, given, cheap(name), target, max_memory=2**40)
    row = max(subject.measured_bytes.values())
    for budget in (1, int(2.5 * row * attrib.METHODS[name].memory_factor)):
        part = attrib.explain(subject, given, cheap(name), target, max_memory=budget)
        assert worst(part.values, whole.values) < CLOSE and worst(part.score, whole.score) < CLOSE
        assert part.target == whole.target and part.sites == whole.sites
        assert worst(part.parts["metric_clean"], whole.parts["metric_clean"]) < CLOSE


def test_when_memory_runs_out(name):
    given = attrib.pair([[4, 5, 6, 7]] * 5, [[4, 9 + i, 6, 7] for i in range(5)])
    whole = attrib.explain(language_model(), given, cheap(name), ANSWERS)
    subject = language_model()

    def tight(module, args, kwargs):
        if len(kwargs["inputs_embeds"]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    subject.module.register_forward_pre_hook(tight, with_kwargs=True)
    assert worst(attrib.explain(subject, given, cheap(name), ANSWERS).values, whole.values) < CLOSE


def test_precision(name):
    wide = attrib.explain(language_model(), prompts(), cheap(name), ANSWERS)
    narrow = attrib.explain(language_model(torch.float32), prompts(), cheap(name), ANSWERS)
    assert narrow.values.dtype == torch.float32 and wide.values.dtype == torch.float64
    assert worst(narrow.values, wide.values) < 1e-4
    half = language_model(torch.bfloat16)
    rough = attrib.explain(half, prompts(), cheap(name), ANSWERS)
    half_wide = attrib.wrap(copy.deepcopy(half.module).float(), tokenizer=half.tokenizer)
    full = attrib.explain(half_wide, prompts(), cheap(name), ANSWERS)
    assert rough.values.isfinite().all()
    assert pearsonr(rough.values.float().flatten(), full.values.flatten()).statistic > 0.95


def test_under_no_grad(name):
    subject = language_model()
    expected = attrib.explain(subject, prompts(1), cheap(name), ANSWERS)
    with torch.no_grad():
        assert torch.equal(attrib.explain(subject, prompts(1), cheap(name), ANSWERS).values, expected.values)


def test_can_be_shown(name):
    result = attrib.explain(language_model(), prompts(1), cheap(name), ANSWERS)
    assert len(result.plot(rows="layer", columns="token").axes) >= 2
    assert "<script" not in result._repr_html_() and result.method in result._repr_html_()


def test_candidates_have_a_row_each(name):
    subject, given = language_model(), prompts(2)
    asked = (ANSWERS, attrib.LogitDiff("w9", "w12"))
    together = attrib.explain(subject, given, cheap(name), attrib.Candidates(*asked))
    assert len(together) == 4 and len(together.corrupted_texts) == 4
    for i, target in enumerate(asked):
        alone = attrib.explain(subject, given, cheap(name), target)
        assert worst(together.values[i::2], alone.values) < CLOSE
        assert worst(together.score[i::2], alone.score) < CLOSE


def test_a_position_before_the_last_is_asked(name):
    """What is read at position 2 cannot hang on what comes after it in a causal model."""
    subject = language_model()
    pair = attrib.pair([[4, 5, 6, 7, 8]], [[4, 9, 6, 7, 8]])
    result = attrib.explain(subject, pair, cheap(name), attrib.LogitDiff("w7", "w8", position=2))
    assert (result.values[..., 3:] == 0).all() and (result.values[..., 2] != 0).any()
    last = attrib.explain(subject, attrib.pair([[4, 5, 6]], [[4, 9, 6]]), cheap(name), ANSWERS)
    assert worst(result.values[..., :3], last.values) < CLOSE
