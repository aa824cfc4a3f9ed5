"""The steps that ways in have in common: to trust the CA, to give variables to the Ollama server. Pure text.

What is put in has been checked by the caller; values are quoted for the place they stand in all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DROP_INS = "/etc/systemd/system/ollama.service.d"
_PEM = "ollama-mirror-ca.pem"
_AGAIN = ("sudo systemctl daemon-reload", "sudo systemctl restart ollama")


@dataclass(frozen=True, slots=True)
class Step:
    """Lines to copy, and where they are for."""

    where: str
    lines: Sequence[str]


def pairs(fingerprint: str) -> str:
    """Write a digest in hexadecimal as openssl prints it: ``AB:CD:..``."""
    return ":".join(fingerprint[at : at + 2].upper() for at in range(0, len(fingerprint), 2))


def trust(url: str, fingerprint: str | None, proxy: str | None = None) -> tuple[Step, ...]:
    """Return how a machine comes to trust the CA of the mirror at ``url``; a container gets ``proxy`` too."""
    shown = pairs(fingerprint) if fingerprint else "the one that mirror tls show prints"
    environment = f"-e HTTPS_PROXY={proxy} " if proxy else ""
    return (
        Step(
            "Fetch the CA and compare its fingerprint",
            [
                f"curl -o {_PEM} {url}/mirror/ca.pem",
                f"openssl x509 -in {_PEM} -noout -fingerprint -sha256",
                f"# must be {shown}",
            ],
        ),
        Step(
            "Trust it: Debian, Ubuntu",
            [
                f"sudo cp {_PEM} /usr/local/share/ca-certificates/ollama-mirror-ca.crt",
                "sudo update-ca-certificates",
                "sudo systemctl restart ollama",
            ],
        ),
        Step(
            "Trust it: Fedora, RHEL",
            [
                f"sudo cp {_PEM} /etc/pki/ca-trust/source/anchors/",
                "sudo update-ca-trust",
                "sudo systemctl restart ollama",
            ],
        ),
        Step(
            "Trust it: macOS (then quit Ollama and open it again)",
            [f"sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {_PEM}"],
        ),
        Step(
            "Trust it: Windows, in PowerShell as administrator (then quit Ollama and open it again)",
            [f"Import-Certificate -FilePath {_PEM} -CertStoreLocation Cert:\\LocalMachine\\Root"],
        ),
        Step(
            "Trust it: an Ollama container (SSL_CERT_FILE takes the bundle's place: so the bundle, and ours appended)",
            [
                "docker run --rm --entrypoint cat ollama/ollama /etc/ssl/certs/ca-certificates.crt > bundle.pem",
                f"cat {_PEM} >> bundle.pem",
                "docker run -d --name ollama -p 11434:11434 -v ollama:/root/.ollama \\",
                f'  -v "$PWD/bundle.pem:/bundle.pem:ro" -e SSL_CERT_FILE=/bundle.pem {environment}ollama/ollama',
            ],
        ),
    )


def environment(way: str, variables: Mapping[str, str]) -> tuple[Step, ...]:
    """Return how the Ollama server gets the variables of a way; the first step is systemd's."""
    assignments = [f'Environment="{key}={_systemd(value)}"' for key, value in variables.items()]
    return (
        Step(
            "Set it: Linux with systemd",
            [
                f"sudo mkdir -p {_DROP_INS}",
                f"sudo tee {_DROP_INS}/mirror-{way}.conf <<'END'",
                "[Service]",
                *assignments,
                "END",
                *_AGAIN,
            ],
        ),
        Step(
            "Set it: docker compose",
            [
                "services:",
                "  ollama:",
                "    environment:",
                *(f'      {key}: "{value}"' for key, value in variables.items()),
            ],
        ),
        Step(
            "Set it: macOS (then quit Ollama and open it again; it holds until the next restart of the machine)",
            [f'launchctl setenv {key} "{value}"' for key, value in variables.items()],
        ),
        Step(
            "Set it: Windows (then quit Ollama in the tray and start it again)",
            [f'setx {key} "{value}"' for key, value in variables.items()],
        ),
    )


def environment_undone(way: str, variables: Mapping[str, str]) -> tuple[Step, ...]:
    """Return how ``environment`` is taken back, in the same order."""
    return (
        Step("Linux with systemd", [f"sudo rm {_DROP_INS}/mirror-{way}.conf", *_AGAIN]),
        Step("docker compose", ["# take the variables out again, then: docker compose up -d"]),
        Step("macOS", [f"launchctl unsetenv {key}" for key in variables]),
        Step("Windows", [f"reg delete HKCU\\Environment /v {key} /f" for key in variables]),
    )


def _systemd(value: str) -> str:
    """Quote for ``Environment="..."`` (systemd.syntax(7), systemd.unit(5) on specifiers)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
