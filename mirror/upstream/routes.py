"""Which upstream a request or a name means. Pure."""

import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import translate
from functools import lru_cache

from mirror.config import FurtherUpstream
from mirror.errors import SettingsError
from mirror.values import ModelName


class Routes:
    """Upstreams by the host under which their models are filed; ``main`` is that of the one nobody need name."""

    def __init__(self, main: str, further: Iterable[FurtherUpstream]) -> None:
        """Read them from the settings. Raises SettingsError where two upstreams want the same host or port."""
        self.main = main
        self._filed = {main.lower(): main}
        self._ports: dict[int, str] = {}
        self._namespaces: list[tuple[re.Pattern[str], str]] = []
        for one in further:
            own = one.hosts[0]
            for host in one.hosts:
                if host.lower() in self._filed:
                    raise SettingsError("upstreams", f"{host} is the host of upstream already", "settings")
                self._filed[host.lower()] = own
            for port in one.ports:
                if port in self._ports:
                    raise SettingsError("upstreams", f"port {port} is there twice", "settings")
                self._ports[port] = own
            self._namespaces += [(re.compile(translate(text), re.IGNORECASE), own) for text in one.namespaces]
        # Asked for every range of every blob, mostly the same.
        self.host = lru_cache(maxsize=1024)(self._host)

    def _host(self, host: str, port: int, namespace: str) -> str:
        """Return the host under which the models are filed that a request means.

        ``host`` is the one it names (with a port or without), ``port`` the one of ours it came in at. A host of an
        upstream decides, else the port, else the namespace: a client that names the mirror itself has no other way.
        """
        said = host.lower().rstrip(".")
        found = self._filed.get(said) or self._filed.get(said.rpartition(":")[0].rstrip("."))
        found = found or self._ports.get(port)
        if found is None:
            found = next((own for pattern, own in self._namespaces if pattern.match(namespace)), None)
        return found or self.main

    def knows(self, name: ModelName) -> bool:
        """Say whether a name's host is one of an upstream."""
        return name.host.lower() in self._filed

    def filed_pattern(self, pattern: str) -> str:
        """Return a pattern of names with the host under which its upstream's models are filed."""
        host, slash, rest = pattern.partition("/")
        own = self._filed.get(host.lower()) if rest.count("/") == 1 else None
        return f"{own}{slash}{rest}" if own is not None else pattern

    def filed(self, name: ModelName) -> ModelName:
        """Return the name under which a model is kept: of several hosts of one upstream the first."""
        own = self._filed.get(name.host.lower())
        return name if own is None or own.lower() == name.host.lower() else replace(name, host=own)
