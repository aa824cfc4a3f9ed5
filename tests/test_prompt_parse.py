"""Reading what a prompt job asks for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mirror.prompts import InvalidPrompt, parse_prompt

HI = {"role": "user", "content": "hi"}


def test_the_older_proxy_s_body() -> None:
    """The model is the one of the settings."""
    asked = parse_prompt({"prompt": "Why?"}, "llama3.2")
    assert (asked.model, asked.body, asked.priority, asked.deadline) == ("llama3.2", {"prompt": "Why?"}, 0, None)


def test_all_that_may_be_said() -> None:
    """With a prompt, and with messages."""
    said = {"prompt": "Why?", "model": "m", "system": "s", "options": {"seed": 1}, "images": ["aGk="], "priority": 3}
    asked = parse_prompt({**said, "deadline": "2026-02-21T13:00:00+01:00"}, "x")
    assert asked.body == {"prompt": "Why?", "system": "s", "options": {"seed": 1}, "images": ["aGk="]}
    assert (asked.model, asked.priority) == ("m", 3)
    assert asked.deadline == datetime(2026, 2, 21, 12, tzinfo=UTC)
    chat = parse_prompt({"messages": [HI], "system": "s"}, "x")
    assert chat.body == {"messages": [{"role": "system", "content": "s"}, HI]}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (None, "a JSON object"),
        ([], "a JSON object"),
        ("Why?", "a JSON object"),
        ({}, "prompt: a text that is not empty"),
        ({"prompt": ""}, "prompt: a text that is not empty"),
        ({"prompt": " \n"}, "prompt: a text that is not empty"),
        ({"prompt": 1}, "prompt: a text"),
        ({"prompt": "x", "promt": "y"}, "the keys deadline"),
        ({"prompt": "x", "model": 1}, "model: a text"),
        ({"prompt": "x", "model": "m" * 601}, "model: a name"),
        ({"prompt": "x", "model": "m\n"}, "model: a name"),
        ({"prompt": "x", "options": []}, "options: an object"),
        ({"prompt": "x", "images": "aGk="}, "images: a list"),
        ({"prompt": "x", "images": [1]}, "images: a list"),
        ({"prompt": "x", "priority": True}, "priority: a whole number"),
        ({"prompt": "x", "priority": 1e3}, "priority: a whole number"),
        ({"prompt": "x", "priority": 10**30}, "priority: a whole number"),
        ({"prompt": "x", "deadline": "tomorrow"}, "deadline: an instant"),
        ({"prompt": "x", "deadline": "2026-02-21T12:00:00"}, "deadline: an instant"),
        ({"prompt": "x", "deadline": "0001-01-01T00:00:00+23:59"}, "deadline: an instant"),
        ({"prompt": "x", "run": "later"}, "run: now, idle, window"),
        ({"prompt": "x", "run": ["now"]}, "run: now, idle, window"),
        ({"prompt": "x", "deadline": 5}, "deadline: an instant"),
        ({"prompt": "x", "messages": [HI]}, "either a prompt, or messages"),
        ({"images": ["aGk="], "messages": [HI]}, "either a prompt, or messages"),
        ({"messages": []}, "messages: a list"),
        ({"messages": "hi"}, "messages: a list"),
        ({"messages": ["hi"]}, "messages: a list"),
        ({"messages": [{"content": "hi"}]}, "messages: a list"),
    ],
)
def test_what_is_none_is_refused_with_what_would_be_one(said: Any, problem: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidPrompt, match=problem):
        parse_prompt(said, "llama3.2")


def test_what_it_may_cost_grows_with_what_is_read_and_made() -> None:
    """The queue shares by it until it is known."""
    costs = [
        parse_prompt(said, "m").cost
        for said in (
            {"prompt": "x", "options": {"num_predict": 8}},
            {"prompt": "x"},
            {"prompt": "x" * 10_000},
        )
    ]
    assert costs == sorted(costs)
    assert costs[0] < 20
