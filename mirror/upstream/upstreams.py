"""All registries above us: the one of ``upstream``, and those of ``upstreams``."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import SecretStr

from mirror.config import FurtherUpstream, UpstreamSettings
from mirror.errors import NotFoundUpstream, SettingsError
from mirror.events import Events
from mirror.upstream.budget import Budget
from mirror.upstream.chain import Chain
from mirror.upstream.registry import Upstream
from mirror.upstream.routes import Routes
from mirror.values import ModelName
from mirror.values.rates import Rates

_HUGGING_FACE = ("https://hf.co", "https://huggingface.co")


class Upstreams:
    """Upstreams by the names of models; each is opened when first asked. For the event loop's thread; close it."""

    def __init__(
        self,
        main: UpstreamSettings,
        further: Sequence[FurtherUpstream],
        hf_token: SecretStr | None,
        key_file: Path,
        events: Events,
        ahead: Budget | None = None,
    ) -> None:
        """Build it; ``ahead`` is what transfers share that nobody waits for.

        Raises SettingsError where two upstreams want the same host, or a token cannot be read.
        """
        self.routes = Routes(main.host, further)
        self.chain = Chain()
        self.ahead = ahead or Budget(None)
        """For transfers that nobody waits for, whatever their upstream and besides its own budget."""
        self._in_force: Callable[[Rates], int | None] = lambda rates: rates.default
        self._rates = {main.host.lower(): main.rate, **{one.hosts[0].lower(): one.rate for one in further}}
        self._ranks = {host.lower(): rank for rank, host in enumerate((main.host, *(one.hosts[0] for one in further)))}
        self._settings = {one.hosts[0].lower(): _settings_of(one, main, hf_token) for one in further}
        self._key_file = key_file
        self._events = events
        self.main = self._opened(main)
        self._open = {main.host.lower(): self.main}

    async def close(self) -> None:
        """End every connection."""
        for one in self._open.values():
            await one.close()

    def of(self, name: ModelName) -> Upstream:
        """Return the upstream that has a model, filed as its name says. Raises NotFoundUpstream: none may be asked."""
        host = name.host.lower()
        found = self._open.get(host)
        if found is None:
            settings = self._settings.get(host)
            if settings is None:
                raise NotFoundUpstream(f"{name}: this mirror has no upstream for {name.host}; upstreams can name one")
            found = self._open[host] = self._opened(settings)
        return found

    def rank(self, name: ModelName) -> int:
        """Return the place of a model's upstream in the settings: 0 is the main one, whose word counts most."""
        return self._ranks.get(name.host.lower(), len(self._ranks))

    @property
    def rates(self) -> list[Rates]:
        """The rates that any upstream is limited to."""
        return [rates for rates in self._rates.values() if rates is not None]

    def change_rate(self, rates: Rates | None) -> None:
        """Limit the main upstream to other rates from the next ``set_rates`` on."""
        self._rates[self.main.settings.host.lower()] = rates

    def set_rates(self, in_force: Callable[[Rates], int | None]) -> None:
        """Limit each upstream, also one that is opened later, to what ``in_force`` says of its rates: bytes per second.

        Until this is called they are limited to what holds outside of all windows.
        """
        self._in_force = in_force
        for one in self._open.values():
            self._limit(one)

    def _opened(self, settings: UpstreamSettings) -> Upstream:
        found = Upstream(settings, settings.key_file or self._key_file, self._events, self.chain, self.ahead)
        self._limit(found)
        return found

    def _limit(self, one: Upstream) -> None:
        rates = self._rates[one.settings.host.lower()]
        one.budget.set_rate(self._in_force(rates) if rates is not None else None)


def _settings_of(one: FurtherUpstream, main: UpstreamSettings, hf_token: SecretStr | None) -> UpstreamSettings:
    """Return what is said of a further upstream, and for the rest what is said of the main one."""
    said = {name: getattr(one, name) for name in ("url", "username", "password", "realms", "key_file", "rate")}
    return main.model_copy(
        update={
            **said,
            "host": one.hosts[0],
            "token": _token_of(one, hf_token),
            "user_agent": one.user_agent or main.user_agent,
            "private_redirects": one.private_redirects,
        }
    )


def _token_of(one: FurtherUpstream, hf_token: SecretStr | None) -> SecretStr | None:
    if one.token_file is None:
        return one.token or (hf_token if one.url in _HUGGING_FACE else None)
    try:
        text = one.token_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        text = ""
    if not text or not text.isprintable():
        raise SettingsError(f"upstreams.{one.name}.token_file", "there is no token to be read from it", "settings")
    return SecretStr(text)
