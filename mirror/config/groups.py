"""Groups of settings that come in lists: further upstreams, and rules on models."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mirror.config.kinds import (
    AnyPath,
    Hosts,
    Name,
    Namespaces,
    PolicyPatterns,
    PrivateRedirects,
    RatesOf,
    Redirects,
    Secret,
    Text,
    Texts,
    WebUrl,
    rows_of_text,
)
from mirror.config.units import ByteSize, Count

READY_MADE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "huggingface": {
            "url": "https://huggingface.co",
            "hosts": ("hf.co", "huggingface.co"),
            "realms": ("hf.co", "huggingface.co"),
        }
    }
)
"""Further upstreams whose name alone says the rest, unless a setting says otherwise."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Credentials(Section):
    """What the mirror says to an upstream that does not answer everybody; sent to that upstream alone."""

    token: Secret | None = Field(None, description="Token that the upstream is shown: Authorization: Bearer.")
    username: Text | None = Field(None, description="User by which tokens are got where the upstream asks for them.")
    password: Secret | None = Field(None, description="That user's password.")


class FurtherUpstream(Credentials):
    """One more registry. What it does not say of time-outs and connections is as in ``upstream``."""

    name: Name = Field(description="Short name; huggingface brings url, hosts and realms.")
    url: WebUrl = Field(description="Registry to fetch from; a path prefix is allowed.")
    hosts: Hosts = Field(description="Hosts it stands behind; its models are filed under the first.")
    namespaces: Namespaces = Field((), description="Namespaces that are its own where no host says whose.")
    ports: tuple[int, ...] = Field((), description="Ports of listen.addresses on which every request is for it.")
    token_file: AnyPath | None = Field(None, description="File that holds the token.")
    realms: Hosts = Field((), description="Further hosts that may hand out tokens.")
    key_file: AnyPath | None = Field(None, description="An ed25519 key for it alone; null is the mirror's.")
    user_agent: Text | None = Field(None, description="User-Agent it is told; null is as in upstream.")
    rate: RatesOf | None = Field(None, description="Bytes per second from it, as in upstream; null is no limit.")
    private_redirects: Redirects = Field(
        PrivateRedirects.AUTO, description="Redirects to private addresses: auto, allow or refuse."
    )

    @model_validator(mode="before")
    @classmethod
    def _ready_made(cls, said: Any) -> Any:
        return {**READY_MADE.get(str(said.get("name")), {}), **said} if isinstance(said, dict) else said

    @model_validator(mode="after")
    def _has_hosts(self) -> Self:
        if not self.hosts:
            raise ValueError("hosts must name at least one")
        return self


class PolicyRule(Section):
    """One rule on models: the first that applies to a request decides. What it leaves open applies to all."""

    allow: PolicyPatterns = Field((), description="Models that it allows.")
    deny: PolicyPatterns = Field((), description="Models that it refuses.")
    users: Texts = Field((), description="Users it is for; anonymous is who shows no key.")
    over: ByteSize | None = Field(None, description="Only models of more bytes than this.")
    parameters_over: Count | None = Field(None, description="Only models of more parameters than this, such as 13B.")
    licenses: Texts = Field((), description="Only models with such a license text: patterns, as *non-commercial*.")
    why: Text | None = Field(None, description="Sentence for those who are refused.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.allow) == bool(self.deny):
            raise ValueError("must have either allow or deny, with models such as [llama3.2, hf.co/*/*]")
        return self


class Destination(Section):
    """An Ollama that models are delivered to."""

    url: WebUrl = Field(description="URL of the Ollama, such as http://gpu1:11434.")
    models: PolicyPatterns = Field((), description="Models it wants, such as llama3*; none listed is all.")
    folder: AnyPath | None = Field(
        None, description="Its OLLAMA_MODELS, where that is on the store's file system: blobs are linked there."
    )


class BackendGroup(Section):
    """One of several Ollamas that share the work."""

    url: WebUrl = Field(description="URL of the Ollama, such as http://gpu1:11434.")
    name: Name | None = Field(None, description="What it is called in headers and lists; null is its host and port.")
    slots: int | None = Field(None, ge=1, le=1000, description="Requests it runs at once; null is dispatch.slots.")
    weight: float = Field(1.0, gt=0, le=1000, description="How much more of the work it takes than one of weight 1.")


def _urls(value: object) -> object:
    """Return the groups that URLs alone mean, as in http://gpu1:11434,http://gpu2:11434."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = [one.strip() for one in value.split(",") if one.strip()]
    rows = rows_of_text(value)
    return [{"url": one} if isinstance(one, str) else one for one in rows] if isinstance(rows, list | tuple) else rows


def _apart(found: tuple[FurtherUpstream, ...]) -> tuple[FurtherUpstream, ...]:
    for what, each in (("name", [(one.name,) for one in found]), ("host", [one.hosts for one in found])):
        said = [text.lower() for texts in each for text in texts]
        if twice := next((text for text in said if said.count(text) > 1), None):
            raise ValueError(f"must not have the {what} {twice} twice")
    return found


Upstreams = Annotated[tuple[FurtherUpstream, ...], AfterValidator(_apart), BeforeValidator(rows_of_text)]
Rules = Annotated[tuple[PolicyRule, ...], BeforeValidator(rows_of_text)]
Destinations = Annotated[tuple[Destination, ...], BeforeValidator(_urls)]
Backends = Annotated[tuple[BackendGroup, ...], BeforeValidator(_urls)]
