"""The ways by which an Ollama reaches this mirror, with the lines to copy. Pure: facts in, ways out.

What each way covers was measured (docs/protocol.md §7, docs/ways.md). Every host in a line has passed ``Place``.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirror.config import FurtherUpstream
from mirror.values import DEFAULT_HOST
from mirror.web.steps_to import Step, environment, environment_undone, trust

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}\Z|[0-9A-Fa-f:.]{2,45}\Z", re.ASCII)
_ADDRESS = re.compile(r"(?!127\.)[0-9.]+\Z|(?!::1\Z)[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\Z", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z", re.ASCII)
_TENSORS = "Blobs of tensor models (MLX): their client ignores proxies. The ways name and dns cover them."
_CLOUD = "Cloud models: they run at ollama.com, which NO_PROXY lets Ollama reach directly, where it may."
_OTHERS = "Other registries: the mirror refuses them unless upstreams or listen.tunnel lists them."
_EVERYTHING = (
    "On macOS and Windows the variable holds for your other programs too, and the mirror refuses where they go: "
    "there, rather start ollama serve by hand with it."
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the mirror is reached by plain HTTP: a host safe to paste into a shell (no IPv6 brackets), and a port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if _HOST.match(self.host) is None or not 0 < self.port < 65536:
            raise ValueError(f"{self.host!r} port {self.port} is no place to be reached at")

    def shown(self, default: int | None = None) -> str:
        """Return it as a URL has it, without a port that is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Its URL; the port is always said, for a model's name and a proxy's variable have no default."""
        return f"http://{self.shown()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is so of this mirror for one who asks it: ``proxy`` is where it takes proxied requests.

    ``url`` is the mirror's for people; ``secure`` says that it is https, ``prefix`` that it has a path. ``main`` is
    the host of plain names, ``hosts`` all it stands in for. ``fingerprint`` is the CA's SHA-256, None without a CA;
    ``uncovered`` those hosts it may not speak for. ``folder`` is the store if an Ollama may have it too, and only for
    a caller on the same machine. ``elsewhere`` are URLs for other machines where the caller used a loopback address.
    """

    id: str
    version: str
    url: str
    proxy: Place
    secure: bool = False
    prefix: bool = False
    ports: frozenset[int] = frozenset()
    main: str = DEFAULT_HOST
    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    further: tuple[FurtherUpstream, ...] = ()
    fingerprint: str | None = None
    uncovered: tuple[str, ...] = ()
    folder: Path | None = None
    elsewhere: tuple[str, ...] = ()

    @property
    def example(self) -> str:
        """The model of the examples, as its name is without the mirror."""
        return "llama3.2" if self.main == DEFAULT_HOST else f"{self.main}/library/llama3.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way: ``lacks`` says why it is not ready and what to do about it on the mirror, empty where it is."""

    key: str
    title: str
    lacks: str
    needs: tuple[str, ...]
    steps: tuple[Step, ...]
    attempt: tuple[str, ...]
    undo: tuple[Step, ...]
    leaves_out: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether the mirror has what this way needs of it."""
        return not self.lacks


KEYS = ("name", "plain-proxy", "proxy", "dns", "folder")
"""The ways in the order in which they are shown: what needs least comes first."""


def ways(facts: Facts) -> tuple[Way, ...]:
    """Return every way, ready or not, in the order of KEYS."""
    return (_name(facts), _plain_proxy(facts), _proxy(facts), _dns(facts), _folder(facts))


def _name(facts: Facts) -> Way:
    host = facts.url.partition("://")[2]
    lacks = ""
    if facts.prefix:
        lacks = "server.public_url has a path, which a model's name cannot have. Give the mirror a name without one."
    elif host.startswith("["):
        lacks = "An IPv6 address cannot stand in a model's name. Ask for this page by a name of the mirror."
    pull = "ollama pull" if facts.secure else "ollama pull --insecure"
    lines = [f"{pull} {host}/library/llama3.2", f"ollama cp {host}/library/llama3.2 llama3.2"]
    further, left_out = _further(facts, pull)
    return Way(
        key="name",
        title="By the mirror's name: nothing to set up on the machine that pulls",
        lacks=lacks,
        needs=("Nothing. --insecure means plain HTTP; every digest is checked all the same.",),
        steps=(
            Step("Any machine with Ollama (the second line gives it the plain name, without a copy)", lines),
            *further,
        ),
        attempt=(f"curl -fsS {facts.url}/v2/",),
        undo=(Step("Any machine", [f"ollama rm {host}/library/llama3.2"]),),
        leaves_out=(
            "Plain names: ollama pull llama3.2 still goes to the internet, as do programs that pull by plain names.",
            *left_out,
        ),
    )


def _further(facts: Facts, pull: str) -> tuple[list[Step], list[str]]:
    """Return how models of further upstreams are named at the mirror, and what cannot be."""
    steps, left_out = [], []
    host = facts.url.partition("://")[2]
    for one in facts.further:
        names = [f"{facts.proxy.host}:{port}/NAMESPACE/MODEL" for port in one.ports[:1]]
        names += [f"{host}/{space if _NAMESPACE.match(space) else 'NAMESPACE'}/MODEL" for space in one.namespaces[:3]]
        if names:
            steps.append(Step(f"Models of {one.hosts[0]}", [f"{pull} {name}" for name in dict.fromkeys(names)]))
        else:
            said = f"Models of {one.hosts[0]}: its entry in upstreams has neither namespaces nor ports. "
            left_out.append(f"{said}The other ways cover them.")
    left_out.append("Namespaces with a dot: Ollama takes no such name.")
    return steps, left_out


def _plain_proxy(facts: Facts) -> Way:
    variables = {"HTTP_PROXY": facts.proxy.url, "NO_PROXY": "ollama.com"}
    return Way(
        key="plain-proxy",
        title="As a proxy for plain HTTP: plain names, no certificate",
        lacks="",
        needs=("The variables in the environment of the Ollama server, and --insecure at every pull.",),
        steps=(
            *environment("plain-proxy", variables),
            Step("Then", [f"ollama pull --insecure {one}" for one in _examples(facts)]),
        ),
        attempt=(f"curl -fsS -x {facts.proxy.url} http://{facts.main}/mirror/setup",),
        undo=environment_undone("plain-proxy", variables),
        leaves_out=("Pulls without --insecure: they go to the internet.", _TENSORS, _CLOUD, _OTHERS, _EVERYTHING),
    )


def _proxy(facts: Facts) -> Way:
    variables = {"HTTPS_PROXY": facts.proxy.url, "NO_PROXY": "ollama.com"}
    return Way(
        key="proxy",
        title="As a proxy for HTTPS: plain names, nothing to say at a pull",
        lacks=_without_ca(facts),
        needs=("The mirror's CA trusted on the machine.", "The variables in the environment of the Ollama server."),
        steps=(
            *trust(facts.url, facts.fingerprint, facts.proxy.url),
            *environment("proxy", variables),
            Step("Then", [f"ollama pull {one}" for one in _examples(facts)]),
        ),
        attempt=(f"curl -fsS -x {facts.proxy.url} https://{facts.main}/mirror/setup",),
        undo=environment_undone("proxy", variables),
        leaves_out=(_TENSORS, _CLOUD, _OTHERS, _EVERYTHING),
    )


def _dns(facts: Facts) -> Way:
    lacks = "" if 80 in facts.ports else _without_ca(facts)  # --insecure needs no CA
    if not facts.ports & {80, 443}:
        listen = "Set listen.addresses, such as [0.0.0.0:11434, 0.0.0.0:443, 0.0.0.0:80], and start it again."
        lacks = f"The mirror listens on neither port 443 nor 80. {listen}"
    secure = 80 not in facts.ports or (443 in facts.ports and not _without_ca(facts))
    pull = "ollama pull" if secure else "ollama pull --insecure"
    # A loopback address would lead the mirror's own machine, its upstream included, back to the mirror.
    address = facts.proxy.host if _ADDRESS.match(facts.proxy.host) else "ADDRESS"
    others = ", ".join(facts.hosts[1:])
    said = f"{others}: redirect these too only where nothing but Ollama uses them; the mirror knows models only."
    return Way(
        key="dns",
        title="By DNS: plain names for every client, tensor models too",
        lacks=lacks,
        needs=(
            f"On the LAN's resolver, or in /etc/hosts of each machine: {facts.main} -> an address of the mirror.",
            "The mirror's CA trusted on the machine (port 443), or --insecure at every pull (port 80).",
            "A resolver for the mirror itself that does not say so: it must still find the upstream.",
        ),
        steps=(
            *(trust(facts.url, facts.fingerprint) if secure else ()),
            Step(
                "One machine, without touching the resolver",
                [f"echo '{address} {facts.main}' | sudo tee -a /etc/hosts"],
            ),
            Step("Or the LAN's dnsmasq", [f"address=/{facts.main}/{address}"]),
            Step("Then", [f"{pull} {facts.example}"]),
        ),
        attempt=(f"getent hosts {facts.main}", f"curl -fsS http{'s' * secure}://{facts.main}/mirror/setup"),
        undo=(
            Step("One machine", [f"sudo sed -i '/ {facts.main.replace('.', '[.]')}/d' /etc/hosts"]),
            Step("The resolver", ["# take the lines out again, and reload it"]),
        ),
        leaves_out=(
            "Cloud models: they run at ollama.com, which is not redirected.",
            *([said] if others else ()),
        ),
    )


def _folder(facts: Facts) -> Way:
    lacks, folder = "", str(facts.folder or "/srv/models")
    if facts.folder is None:
        lacks = (
            "It is for an Ollama on the mirror's own machine, with cache.shared_with_ollama set. Ask for this there."
        )
    elif not folder.isprintable():
        lacks = "The name of the store's folder has characters that a line cannot have. Give it another."
        folder = "/srv/models"
    variables = {"OLLAMA_MODELS": folder, "OLLAMA_NOPRUNE": "1"}
    return Way(
        key="folder",
        title="One folder: the mirror's store is the Ollama's own, on the same machine",
        lacks=lacks,
        needs=("cache.shared_with_ollama on the mirror.", "Both may read and write the folder."),
        steps=(environment("folder", variables)[0], Step("By hand", [f"{_shell(variables)} ollama serve"])),
        attempt=("ollama list", "mirror doctor"),
        undo=(environment_undone("folder", variables)[0],),
        leaves_out=(
            "Pulls by that Ollama: they go by one of the other ways. What the mirror has is there without one.",
        ),
    )


def _without_ca(facts: Facts) -> str:
    if facts.fingerprint is None:
        return "This mirror has no CA. Run mirror tls init on it."
    if facts.main in facts.uncovered:
        return f"The CA may not speak for {facts.main}. Run mirror tls renew on the mirror."
    return ""


def _examples(facts: Facts) -> Iterable[str]:
    yield facts.example
    for one in facts.further:
        if one.hosts[0] not in facts.uncovered:
            yield f"{one.hosts[0]}/NAMESPACE/MODEL"


def _shell(variables: dict[str, str]) -> str:
    return " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())


__all__ = ["KEYS", "Facts", "Place", "Step", "Way", "ways"]
