"""Which upstream a request or a name means. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import Self

from mirror.config import FurtherUpstream
from mirror.errors import SettingsError
from mirror.values import ModelName


@dataclass(frozen=True, slots=True)
class Routes:
    """Upstreams by the host under which their models are filed; ``main`` is that of the one nobody need name."""

    main: str
    _filed: Mapping[str, str]
    _ports: Mapping[int, str]
    _namespaces: tuple[tuple[re.Pattern[str], str], ...]

    @classmethod
    def of(cls, main: str, further: Iterable[FurtherUpstream]) -> Self:
        """Read them from the settings. Raises SettingsError where two upstreams want the same host or port."""
        filed, ports, namespaces = {main.lower(): main}, {}, []
        for one in further:
            own = one.hosts[0]
            for host in one.hosts:
                if host.lower() in filed:
                    raise SettingsError("upstreams", f"{host} is the host of upstream already", "settings")
                filed[host.lower()] = own
            for port in one.ports:
                if port in ports:
                    raise SettingsError("upstreams", f"port {port} is there twice", "settings")
                ports[port] = own
            namespaces += [(re.compile(translate(pattern), re.IGNORECASE), own) for pattern in one.namespaces]
        return cls(main, filed, ports, tuple(namespaces))

    def host(self, host: str, port: int, namespace: str) -> str:
        """Return the host under which the models are filed that a request means.

        ``host`` is the one it names (with a port or without), ``port`` the one of ours it came in at. A host of an
        upstream decides, else the port, else the namespace: a client that names the mirror itself has no other way.
        """
        if len(self._filed) == 1:
            return self.main
        said = host.lower().rstrip(".")
        found = self._filed.get(said) or self._filed.get(said.rpartition(":")[0].rstrip("."))
        found = found or self._ports.get(port)
        if found is None:
            found = next((own for pattern, own in self._namespaces if pattern.match(namespace)), None)
        return found or self.main

    def filed(self, name: ModelName) -> ModelName:
        """Return the name under which a model is kept: of several hosts of one upstream the first."""
        own = self._filed.get(name.host.lower())
        return name if own is None or own.lower() == name.host.lower() else replace(name, host=own)
