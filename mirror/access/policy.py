"""Which models are served to whom: rules in order, then the lists. Pure."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import translate
from typing import Self

from mirror.access.key import ANONYMOUS
from mirror.config import PolicyRule, SecuritySettings, render_size
from mirror.config.units import render_count
from mirror.values import ModelName, NamePattern


class Decision(Enum):
    """What a policy comes to."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and for a refusal the sentence for who is refused: it names the rule."""

    decision: Decision
    why: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the model may be served."""
        return self.decision is Decision.ALLOWED

    @property
    def refused(self) -> bool:
        """Whether it may not."""
        return self.decision is Decision.REFUSED

    @property
    def undecided(self) -> bool:
        """Whether its manifest has to be looked at: ask again with facts."""
        return self.decision is Decision.UNDECIDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a model says of itself: bytes of all its blobs, parameters where it says how many, texts of its licenses."""

    size: int
    parameters: int | None = None
    licenses: tuple[str, ...] = ()
    _held: dict[PolicyRule, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By rules whether what they ask is so: the texts are searched once."""


_ALLOWED = Verdict(Decision.ALLOWED)
_UNDECIDED = Verdict(Decision.UNDECIDED)


@dataclass(frozen=True, slots=True)
class _Rule:
    place: int
    said: PolicyRule
    patterns: tuple[NamePattern, ...]
    licenses: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, place: int, said: PolicyRule, host: str, filed: Callable[[str], str]) -> Self:
        """Read a rule of the settings."""
        licenses = tuple(re.compile(translate(_one_line(one)), re.IGNORECASE) for one in said.licenses)
        return cls(place, said, _patterns(said.allow or said.deny, host, filed), licenses)

    def meets(self, name: ModelName, user: str) -> bool:
        """Say whether it is for this model and user, whatever the facts are."""
        return (not self.said.users or user in self.said.users) and any(one.matches(name) for one in self.patterns)

    @property
    def asks_for_facts(self) -> bool:
        """Whether a name alone does not decide."""
        return self.said.over is not None or self.said.parameters_over is not None or bool(self.licenses)

    def holds(self, facts: Facts) -> bool:
        """Say whether what it asks of a model is so; what the model does not say is not so."""
        if self.said not in facts._held:
            facts._held[self.said] = self._holds(facts)
        return facts._held[self.said]

    def _holds(self, facts: Facts) -> bool:
        said = self.said
        if said.over is not None and facts.size <= said.over:
            return False
        if said.parameters_over is not None and (facts.parameters is None or facts.parameters <= said.parameters_over):
            return False
        texts = [_one_line(one) for one in facts.licenses]
        return not self.licenses or any(pattern.match(text) for pattern in self.licenses for text in texts)

    def verdict(self, name: ModelName) -> Verdict:
        """Return what it says of a model that it applies to."""
        if self.said.allow:
            return _ALLOWED
        why = f": {self.said.why}" if self.said.why else ""
        return Verdict(Decision.REFUSED, f"{name.short} is refused by rule {self.place} ({self}){why}")

    def __str__(self) -> str:
        said = self.said
        parts = [f"{'allow' if said.allow else 'deny'} {', '.join(said.allow or said.deny)}"]
        if said.users:
            parts.append(f"for {', '.join(said.users)}")
        if said.over is not None:
            parts.append(f"over {render_size(said.over)}")
        if said.parameters_over is not None:
            parts.append(f"with more than {render_count(said.parameters_over)} parameters")
        if said.licenses:
            parts.append(f"with a license like {', '.join(said.licenses)}")
        return " ".join(parts)


class Policy:
    """Decides by ``security.rules`` in order, then ``blocked_models``, then ``allowed_models``. Safe in any thread."""

    def __init__(self, rules: tuple[_Rule, ...], blocked: tuple[NamePattern, ...], allowed: tuple[NamePattern, ...]):
        self._rules = rules
        self._blocked = blocked
        self._allowed = allowed

    @classmethod
    def of(cls, security: SecuritySettings, host: str, filed: Callable[[str], str] = str) -> Self:
        """Read the settings; ``host`` is the one meant by patterns that name none.

        ``filed`` says of a pattern how it reads with the host under which an upstream's models are filed.
        """
        return cls(
            tuple(_Rule.of(place, one, host, filed) for place, one in enumerate(security.rules, 1)),
            _patterns(security.blocked_models, host, filed),
            _patterns(security.allowed_models, host, filed),
        )

    @property
    def asks_parameters(self) -> bool:
        """Whether a rule is on how many parameters a model has."""
        return any(rule.said.parameters_over is not None for rule in self._rules)

    @property
    def asks_licenses(self) -> bool:
        """Whether a rule is on what a model's license says."""
        return any(rule.licenses for rule in self._rules)

    @property
    def empty(self) -> bool:
        """Whether everything is allowed to everybody."""
        return not (self._rules or self._blocked or self._allowed)

    def decide(self, name: ModelName, user: str = ANONYMOUS, facts: Facts | None = None) -> Verdict:
        """Decide on a model for a user; undecided only where ``facts`` are needed and None."""
        for rule in self._rules:
            if not rule.meets(name, user):
                continue
            if rule.asks_for_facts:
                if facts is None:
                    return _UNDECIDED
                if not rule.holds(facts):
                    continue
            return rule.verdict(name)
        for pattern in self._blocked:
            if pattern.matches(name):
                return Verdict(Decision.REFUSED, f"{name.short} is refused: security.blocked_models has {pattern}")
        if self._allowed and not any(pattern.matches(name) for pattern in self._allowed):
            return Verdict(Decision.REFUSED, f"{name.short} is refused: it is not among security.allowed_models")
        return _ALLOWED


def _patterns(texts: Iterable[str], host: str, filed: Callable[[str], str]) -> tuple[NamePattern, ...]:
    return tuple(NamePattern.parse(filed(one), host=host, any_tag=True) for one in texts)


def _one_line(text: str) -> str:
    return " ".join(text.split())
