"""Patterns of model names: what people write to pin, and later to allow and to keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.values import InvalidPattern, ModelName, NamePattern

PART = st.text("aB9_-.", min_size=1, max_size=6).filter(lambda text: text[0] not in "-.")


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("qwen3", ["qwen3", "library/QWEN3:latest"], ["qwen3:8b", "qwen33", "me/qwen3", "hub.lan/library/qwen3"]),
        ("qwen3:*", ["qwen3", "Qwen3:8B"], ["qwen2.5:8b", "me/qwen3"]),
        ("qwen*:?b", ["qwen3:8b", "qwen2.5:3b"], ["qwen3:14b", "qwen3"]),
        ("*:*", ["a:b"], ["me/a:b", "hub.lan/library/a:b"]),
        ("me/*", ["me/a"], ["me/a:b", "you/a"]),
        ("*/*/*:*", ["a", "me/a:b", "hub.lan:5000/me/a:b"], []),
        ("hub.lan:5000/me/a", ["hub.lan:5000/me/a"], ["hub.lan/me/a"]),
        ("a.b", ["a.b"], ["aXb"]),
    ],
)
def test_what_a_pattern_means(pattern: str, matching: list[str], others: list[str]) -> None:
    """Left out parts have their defaults, and a wildcard stays within its part."""
    parsed = NamePattern.parse(pattern)
    assert [parsed.matches(ModelName.parse(one)) for one in matching] == [True] * len(matching)
    assert [parsed.matches(ModelName.parse(one)) for one in others] == [False] * len(others)
    assert str(parsed) == pattern


def test_the_default_host_is_the_upstreams() -> None:
    """A mirror of another registry pins its models by short names too."""
    parsed = NamePattern.parse("a:*", host="hub.lan:5000")
    assert parsed.matches(ModelName.parse("a:b", host="hub.lan:5000"))
    assert not parsed.matches(ModelName.parse("a:b"))


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("qwen3", ["qwen3", "qwen3:8b"], ["qwen33", "me/qwen3"]),
        ("qwen3:8b", ["qwen3:8b"], ["qwen3"]),
        ("hf.co/*/*", ["hf.co/me/a:Q4", "HF.co/you/b"], ["a", "me/a"]),
        ("*", ["a", "me/a:b", "hf.co/me/a:Q4"], []),
    ],
)
def test_rules_mean_every_tag_unless_they_name_one(pattern: str, matching: list[str], others: list[str]) -> None:
    """Who blocks a model does not mean one tag of it, and a lone star is everything."""
    parsed = NamePattern.parse(pattern, any_tag=True)
    assert [parsed.matches(ModelName.parse(one)) for one in matching] == [True] * len(matching)
    assert [parsed.matches(ModelName.parse(one)) for one in others] == [False] * len(others)


@pytest.mark.parametrize("text", ["", " ", "a b", "m[12]", "a/b/c/d", "a:", ":b", "!x", "a@sha256:1", "a\nb", "{a,b}"])
def test_what_no_name_can_match_is_refused(text: str) -> None:
    """A pin that silently pins nothing would be found out when the model is gone."""
    with pytest.raises(InvalidPattern, match="qwen3:"):
        NamePattern.parse(text)


@given(PART, PART, PART)
def test_a_name_matches_itself_and_equal_patterns_are_equal(namespace: str, model: str, tag: str) -> None:
    """Pins are taken back by the words in which they were set."""
    text = f"{namespace.replace('.', '_')}/{model}:{tag}"
    assert NamePattern.parse(text).matches(ModelName.parse(text.upper()))
    assert NamePattern.parse(text) == NamePattern.parse(f" {text} ")
