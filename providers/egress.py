"""Which addresses the hub may call. No Django here: the app installs where the policy comes from.

Public addresses may be called. Loopback, private, link-local, metadata, NAT64, IPv4-mapped and other special
addresses may not, unless LLMHUB_EGRESS_ALLOW lists the host and port; loopback also while the hub itself
listens on loopback alone. `refusal` judges a base URL when it is saved, without DNS; `check_address` judges
the peer at every connect.
"""

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

from providers.errors import UpstreamUnreachable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
    )
)
# IPv6 ranges that lead to an IPv4 address which could be anything.
TRANSLATED = {
    ipaddress.ip_network("::ffff:0:0/96"): "an IPv4-mapped address",
    ipaddress.ip_network("::/96"): "an IPv4-compatible address",
    ipaddress.ip_network("64:ff9b::/96"): "a NAT64 address",
    ipaddress.ip_network("64:ff9b:1::/48"): "a NAT64 address",
    ipaddress.ip_network("2002::/16"): "a 6to4 address",
    ipaddress.ip_network("2001::/32"): "a Teredo address",
}


class Policy:
    """What is allowed besides public addresses: entries 'host:port' or 'host:*', and loopback as a whole."""

    def __init__(self, allow: Iterable[str] = (), *, loopback: bool = False) -> None:
        self.loopback = loopback
        self._allow = frozenset(_entry(text) for text in allow)

    def problem(self, host: str, port: int, ip: IPAddress) -> str:
        """What `ip` is that may not be called as `host`:`port`; empty when it may."""
        problem = _special(ip)
        if not problem or (self.loopback and ip.is_loopback):
            return ""
        return "" if self.allows(host, port) or self.allows(str(ip), port) else problem

    def allows(self, host: str, port: int) -> bool:
        name = _normal(host)
        return (name, str(port)) in self._allow or (name, "*") in self._allow


_source: Callable[[], Policy] = Policy


def use(source: Callable[[], Policy]) -> None:
    """Ask `source` for the policy from now on. Until then only public addresses may be called."""
    global _source
    _source = source


def refusal(base_url: str) -> str:
    """Why `base_url` may not be called; empty when it may, or when only its DNS answer can tell."""
    try:
        parts = urlsplit(base_url)
        host = _normal(unquote(parts.hostname or ""))
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return f"{base_url!r} is not a URL. Write it like https://api.example.com/v1."
    ip = ipaddress.ip_address("127.0.0.1") if _is_localhost(host) else _literal(host)
    problem = _source().problem(host, port, ip) if ip else ""
    return _sentence(f"{host} is {problem}", host, port) if problem else ""


def check_address(host: str, port: int, ip: str) -> None:
    """Raises UpstreamUnreachable unless the hub may connect to `ip` when it calls `host`:`port`."""
    problem = _source().problem(host, port, ipaddress.ip_address(ip))
    if problem:
        subject = f"{host} is" if _normal(host) == _normal(ip) else f"{host} leads to {ip},"
        raise UpstreamUnreachable(_sentence(f"{subject} {problem}", host, port))


def _sentence(finding: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return (
        f"{finding}, which the hub may not call. If it is your own upstream, "
        f"add {shown}:{port} to LLMHUB_EGRESS_ALLOW and restart."
    )


def _special(ip: IPAddress) -> str:
    """What sets `ip` apart from a public address; empty when nothing does."""
    if isinstance(ip, ipaddress.IPv6Address) and not (ip.is_loopback or ip.is_unspecified):
        for network, kind in TRANSLATED.items():
            if ip in network:
                return kind
    kinds = (
        (ip in METADATA, "a cloud metadata address"),
        (ip.is_unspecified, "the unspecified address"),
        (ip.is_loopback, "a loopback address"),
        (ip.is_link_local, "a link-local address"),
        (ip.is_multicast, "a multicast address"),
        (ip.is_private, "a private address"),
        (not ip.is_global or ip.is_reserved, "not a public address"),
    )
    return next((kind for holds, kind in kinds if holds), "")


def _literal(host: str) -> IPAddress | None:
    """The address that `host` spells, also as only a resolver reads it (127.1, 0x7f.1, 2130706433)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not re.fullmatch(r"[0-9a-fx.]+", host) or not host[0].isdigit():
        return None
    try:
        return ipaddress.ip_address(socket.inet_aton(host))
    except OSError:
        return None


def _is_localhost(host: str) -> bool:
    return host in ("localhost", "localhost.localdomain", "ip6-localhost") or host.endswith(".localhost")


def _normal(host: str) -> str:
    """One spelling for one host: NFKC (as IDNA does), lower case, no brackets, no final dot, compact IPv6."""
    name = unicodedata.normalize("NFKC", host).lower().replace("\u3002", ".").strip("[]").rstrip(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _entry(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    return _normal(host), port
