"""What a look at one matter gives."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at one matter gave; ``advice`` says what to do, where there is something to be done."""

    matter: str
    verdict: Verdict
    said: str
    advice: str = ""
