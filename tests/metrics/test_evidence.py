"""The four lights: cheap ones without a pass, dear ones against the model; pure data."""

from __future__ import annotations

import json
import math

import contract_nets
import pytest
import torch
from given import Given, linear
from torch import nn

import attrib
from attrib.errors import InputError
from attrib.metrics.evidence import ACCOUNTS, BETTER, CLASS, LEAST_REACHED, LIGHTS, WEIGHTS
from attrib.render import lights


def verdicts(evidence, index: int = 0) -> dict[str, str]:
    return {light.name: light.verdict for light in evidence.lights[index]}


def test_the_cheap_evidence_asks_the_model_nothing():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    result = attrib.explain(model, x, attrib.LRP("epsilon"))
    hook = model.module.register_forward_hook(lambda *_: pytest.fail("a pass"))
    evidence = result.evidence
    hook.remove()
    assert verdicts(evidence) == {
        ACCOUNTS: "passes",
        BETTER: "not checked",
        WEIGHTS: "not checked",
        CLASS: "not checked",
    }
    assert tuple(light.name for light in evidence.lights[1]) == LIGHTS
    assert evidence.light(BETTER).cost == "360 forwards"
    assert evidence.light(WEIGHTS).cost == "9 more explanations"
    assert 0 <= evidence.facts[0]["sparseness"] <= 1
    assert verdicts(attrib.explain(model, x, "saliency").evidence)[ACCOUNTS] == "does not apply"


def test_an_incomplete_map_fails_to_account():
    model, x = contract_nets.model(), contract_nets.pictures(1)
    result = attrib.explain(model, x, attrib.IntegratedGradients(n_steps=1, quadrature="riemann_left"))
    assert result.relative_delta[0] > 0.05
    assert verdicts(result.evidence)[ACCOUNTS] == "fails"


def test_a_good_map_passes_and_a_bad_one_fails_in_words():
    model, right = linear(12, 12)
    x = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    good, bad = Given(right * x[:, 0]), Given(-right * x[:, 0])
    for method, verdict in ((good, "passes"), (bad, "fails")):
        result = attrib.explain(model, x, method, 0)
        light = attrib.check(model, x, result, method).light(BETTER)
        assert light.verdict == verdict
        assert "random maps" in light.words and f"{light.value:.2f}" in light.words
        assert len(light.at) == len(light.curves["deletion"]) == len(light.curves["deletion of random maps"]) == 9
    # a map that does not look at the model cannot depend on it
    evidence = attrib.check(model, x, attrib.explain(model, x, good, 0), good)
    assert verdicts(evidence)[WEIGHTS] == verdicts(evidence)[CLASS] == "fails"


def test_evidence_is_pure_data():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    result = attrib.explain(model, x, "grad_cam")
    seen = []
    evidence = attrib.check(model, x, result, on_progress=lambda part, message: seen.append(part))
    document = json.loads(json.dumps(evidence.document(), allow_nan=False))
    assert len(document["lights"]) == 2 and document["lights"][0][1]["curves"]
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert str(evidence).count("\n") == 7


def test_broken_and_empty_maps_fail():
    model, x = contract_nets.model(), contract_nets.pictures(2)
    maps = torch.rand(2, 16, 16)
    maps[0, 0, 0], maps[1] = math.nan, 1.0
    result = attrib.explain(model, x, Given(maps))
    assert verdicts(result.evidence)[BETTER] == "fails" and result.evidence.facts[0]["sparseness"] is None
    evidence = attrib.check(model, x, result, Given(maps))
    for index in (0, 1):
        assert verdicts(evidence, index)[BETTER] == verdicts(evidence, index)[WEIGHTS] == "fails"


def test_texts_are_checked_too():
    from tiny_text import classifier, language

    for model in (classifier(), language()):
        result = attrib.explain(model, ["the film was not good", "bad food"], attrib.LRP("attn_lrp"))
        evidence = attrib.check(model, ["the film was not good", "bad food"], result)
        assert set(verdicts(evidence).values()) <= {"passes", "fails", "does not apply"}
        assert verdicts(evidence)[ACCOUNTS] == "passes"


def test_a_map_of_a_single_token_is_not_judged():
    from tiny_text import classifier

    model = classifier()
    evidence = attrib.check(model, "great", attrib.explain(model, "great", "saliency"))
    assert set(verdicts(evidence).values()) == {"does not apply"}
    assert "one token only" in evidence.light(BETTER).words


def test_the_methods_settings_are_those_of_the_result():
    model, x = contract_nets.model(), contract_nets.pictures(1)
    method = attrib.SmoothGrad(base=attrib.InputXGradient(), n_samples=3, seed=5)
    result = attrib.explain(model, x, method, 2)
    assert attrib.check(model, x, result).document() == attrib.check(model, x, result, method).document()
    given = attrib.explain(model, x, attrib.IntegratedGradients(n_steps=2, baseline=torch.zeros(3, 16, 16)))
    with pytest.raises(InputError, match="method="):
        attrib.check(model, x, given)


def test_other_inputs_models_and_lost_targets_are_refused():
    model, x = contract_nets.model(), contract_nets.pictures(1)
    result = attrib.explain(model, x, "saliency")
    with pytest.raises(InputError, match="inputs"):
        attrib.check(model, x + 1, result)
    with pytest.raises(InputError, match="weights"):
        attrib.check(attrib.wrap(contract_nets.network(contract_nets.Constant)), x, result)
    of_function = attrib.explain(model, x, "saliency", lambda logits: logits[:, 0])
    with pytest.raises(InputError, match="target="):
        attrib.check(model, x, of_function)
    assert (
        attrib.check(model, x, of_function, target=lambda logits: logits[:, 0]).light(CLASS).verdict == "does not apply"
    )


def test_a_closed_ledger_is_not_enough_where_biases_took_the_score(efficientnet, cheetah):
    lost = attrib.explain(efficientnet, cheetah, "lrp").evidence.light("accounts for the score")
    assert lost.verdict == "fails" and "Less than 10% of the score" in lost.words
    assert lost.value < lost.comparison == LEAST_REACHED  # what it fails by, not what is left over
    assert lights._numbers(lost)[1] == ("the least that passes", "0.1")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3, bias=False))
    result = attrib.explain(attrib.wrap(net), torch.rand(1, 3, 8, 8), attrib.LRP(preset="epsilon"))
    kept = result.evidence.light("accounts for the score")
    assert kept.verdict == "passes" and "1 of it reached the input" in kept.words
