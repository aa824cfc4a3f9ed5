"""A registry mirror, API proxy and hub between a LAN's Ollamas and the internet."""

__version__ = "0.1.0"
