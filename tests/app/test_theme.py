"""The page's style sheets, which gradio reads in its own way."""

from __future__ import annotations

from app import theme


def test_every_rule_with_a_condition_reaches_the_page() -> None:
    given, sent = theme.css(), theme.head()
    for kind in ("@container", "@media", "@supports"):
        assert given.count(kind) == sent.count(kind) > 0
    assert sent.count("{") == sent.count("}") > given.count("@")
