"""The front door: one port for plain HTTP, TLS and CONNECT, and the CA behind it. Touches sockets and key files."""

from mirror.listen.ca import Authority
from mirror.listen.certificates import Certificates
from mirror.listen.data import DataAddress
from mirror.listen.door import Door
from mirror.listen.face import CertificateFace
from mirror.listen.names import Names
from mirror.listen.targets import proxy_requests

__all__ = ["Authority", "CertificateFace", "Certificates", "DataAddress", "Door", "Names", "proxy_requests"]
