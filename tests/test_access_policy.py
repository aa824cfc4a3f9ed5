"""Which models are served to whom."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access import Decision, Facts, Policy
from mirror.values import ModelName
from tests.access import security

HOST = "registry.ollama.ai"
ALLOWED, REFUSED, UNDECIDED = Decision.ALLOWED, Decision.REFUSED, Decision.UNDECIDED
SMALL = Facts(size=1_000_000_000, parameters=3_000_000_000, licenses=("MIT License\n\nCopyright",))
LARGE = Facts(size=40_000_000_000, parameters=70_000_000_000, licenses=("for\nNon-Commercial   use only",))
SILENT = Facts(size=0)


def _policy(**said: Any) -> Policy:
    return Policy.of(security(**said), HOST)


def _name(text: str) -> ModelName:
    return ModelName.parse(text)


@pytest.mark.parametrize(
    ("said", "name", "decision"),
    [
        ({}, "llama3.2", ALLOWED),
        ({"allowed_models": ["llama3.2", "qwen3:8b"]}, "llama3.2:70b", ALLOWED),
        ({"allowed_models": ["llama3.2", "qwen3:8b"]}, "qwen3:8b", ALLOWED),
        ({"allowed_models": ["llama3.2", "qwen3:8b"]}, "qwen3:32b", REFUSED),
        ({"allowed_models": ["llama3.2"]}, "hf.co/library/llama3.2", REFUSED),
        ({"blocked_models": ["hf.co/*/*"]}, "hf.co/a/b:q4", REFUSED),
        ({"blocked_models": ["LLAMA3.2"]}, "llama3.2", REFUSED),
        ({"blocked_models": ["llama3.2"], "allowed_models": ["*"]}, "llama3.2", REFUSED),
        ({"rules": [{"allow": ["llama3.2"]}], "blocked_models": ["*"]}, "llama3.2", ALLOWED),
        ({"rules": [{"allow": ["llama3.2"]}], "blocked_models": ["*"]}, "qwen3", REFUSED),
        ({"rules": [{"deny": ["a"]}, {"allow": ["a"]}]}, "a", REFUSED),
        ({"rules": [{"allow": ["a"]}, {"deny": ["*"]}]}, "a", ALLOWED),
        ({"rules": [{"allow": ["a"]}, {"deny": ["*"]}]}, "b", REFUSED),
    ],
)
def test_rules_come_first_then_what_is_blocked_then_what_is_allowed(
    said: dict[str, Any], name: str, decision: Decision
) -> None:
    """The first rule that applies decides, so that exceptions stand before what they are exceptions of."""
    assert _policy(**said).decide(_name(name)).decision is decision


def test_rules_are_for_users_where_they_say_so() -> None:
    """Anonymous is a user as any other."""
    policy = _policy(rules=[{"allow": ["*"], "users": ["boss"]}, {"deny": ["big"], "users": ["anonymous", "guest"]}])
    decided = {user: policy.decide(_name("big"), user).decision for user in ("boss", "guest", "anonymous", "me")}
    assert decided == {"boss": ALLOWED, "guest": REFUSED, "anonymous": REFUSED, "me": ALLOWED}


@pytest.mark.parametrize(
    ("rule", "small", "large", "silent"),
    [
        ({"over": "20GB"}, ALLOWED, REFUSED, ALLOWED),
        ({"over": "1GB"}, ALLOWED, REFUSED, ALLOWED),
        ({"parameters_over": "13B"}, ALLOWED, REFUSED, ALLOWED),
        ({"licenses": ["*non-commercial use*"]}, ALLOWED, REFUSED, ALLOWED),
        ({"licenses": ["mit license*"]}, REFUSED, ALLOWED, ALLOWED),
        ({"over": "20GB", "parameters_over": "100B"}, ALLOWED, ALLOWED, ALLOWED),
    ],
)
def test_facts_decide_and_what_a_model_does_not_say_is_not_so(
    rule: dict[str, Any], small: Decision, large: Decision, silent: Decision
) -> None:
    """Before they are known the answer is to ask again, never a guess."""
    policy = _policy(rules=[{"deny": ["*"], **rule}])
    assert policy.decide(_name("m")).decision is UNDECIDED
    assert [policy.decide(_name("m"), facts=one).decision for one in (SMALL, LARGE, SILENT)] == [small, large, silent]


def test_facts_are_not_asked_for_where_a_rule_before_decides() -> None:
    """A manifest is fetched for them: only where it has to be."""
    policy = _policy(rules=[{"allow": ["a"]}, {"deny": ["*"], "over": "1GB"}])
    assert policy.decide(_name("a")).allowed
    assert policy.decide(_name("b")).undecided
    assert _policy(rules=[{"deny": ["x"], "over": "1GB"}]).decide(_name("b")).allowed


def test_a_refusal_names_the_rule() -> None:
    """Who is refused can tell whoever wrote the rule which one it was."""
    rule = {"deny": ["hf.co/*/*"], "users": ["guest"], "over": "20GB", "parameters_over": "13B", "licenses": ["*nc*"]}
    policy = _policy(rules=[{"allow": ["a"]}, {**rule, "why": "ask the lab"}], blocked_models=["b"])
    facts = Facts(size=30_000_000_000, parameters=70_000_000_000, licenses=("cc-by-nc",))
    assert policy.decide(_name("hf.co/x/y:q4"), "guest", facts).why == (
        "hf.co/x/y:q4 is refused by rule 2 (deny hf.co/*/* for guest over 20GB with more than 13B parameters "
        "with a license like *nc*): ask the lab"
    )
    assert policy.decide(_name("b")).why == "b:latest is refused: security.blocked_models has b"
    assert _policy(allowed_models=["a"]).decide(_name("b")).why == (
        "b:latest is refused: it is not among security.allowed_models"
    )


def test_without_rules_nothing_is_looked_at() -> None:
    """The way of a hit asks this first."""
    assert _policy().empty
    for said in ({"allowed_models": ["a"]}, {"blocked_models": ["a"]}, {"rules": [{"deny": ["a"]}]}):
        assert not _policy(**said).empty


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc*")), max_size=6), st.sampled_from("abc"))
def test_the_first_rule_that_applies_decides(rules: list[tuple[bool, str]], name: str) -> None:
    """Against the plainest reading of the list."""
    policy = _policy(rules=[{"allow" if allow else "deny": [text]} for allow, text in rules])
    wanted = next((allow for allow, text in rules if text in (name, "*")), True)
    assert policy.decide(_name(name)).allowed is wanted
