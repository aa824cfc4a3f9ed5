"""Who may do what: keys and their file, callers, tokens and tickets, limits, pages, and the policy on models.

Touches ``keys.json``, ``keys.lock`` and ``seal.key`` of the state folder, and nothing else. It decides; faces refuse.
"""

from mirror.access.callers import CALLER, RIGHTS, Caller, Rights, Whereabouts, user_of
from mirror.access.key import ANONYMOUS, Key, Kind
from mirror.access.keyring import Keyring
from mirror.access.keys import Grant, Keys, guarded
from mirror.access.limits import Limit, WrongKeys, client_of
from mirror.access.ollama_keys import SignedRequests
from mirror.access.origins import OwnNames, Pages
from mirror.access.passes import Pass, Passes, is_handed
from mirror.access.policy import Decision, Facts, Policy, Verdict
from mirror.access.scopes import Scope
from mirror.access.seals import Seal
from mirror.access.users import Users

__all__ = [
    "ANONYMOUS",
    "CALLER",
    "RIGHTS",
    "Caller",
    "Decision",
    "Facts",
    "Grant",
    "Key",
    "Keyring",
    "Keys",
    "Kind",
    "Limit",
    "OwnNames",
    "Pages",
    "Pass",
    "Passes",
    "Policy",
    "Rights",
    "Scope",
    "Seal",
    "SignedRequests",
    "Users",
    "Verdict",
    "Whereabouts",
    "WrongKeys",
    "client_of",
    "guarded",
    "is_handed",
    "user_of",
]
