"""Addresses of endpoints, and which of them may get a provider's key.

A base_url is taken apart once and put together again from its parts, so that what is checked is
what is sent. Values in its query (some gateways want ``?api-version=...``, others a key) are sent
and never shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit, urlunsplit

from clm_data.errors import ConfigError

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\Z|[0-9a-f:.]+\Z")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """The parts of a checked base_url.

    Attributes:
        scheme: ``http`` or ``https``.
        host: In lower case, without a final dot.
        port: The port, also if it is the scheme's own.
        path: Without a final slash.
        query: Sent with every request; its values are secret.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = field(default="", repr=False)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be equal for a key to be sent."""
        return self.scheme, self.host, self.port

    def url(self, path: str = "") -> str:
        """The full URL of a path below the address, query included; not for people."""
        return urlunsplit((self.scheme, self._netloc, self.path + path, self.query, ""))

    @property
    def shown(self) -> str:
        """The address without the values of its query."""
        names = [name for name, _ in parse_qsl(self.query, keep_blank_values=True)]
        query = "&".join(f"{quote(name)}=***" for name in names)
        return urlunsplit((self.scheme, self._netloc, self.path, query, ""))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values of the query, as given and as written in it."""
        raw = [part.partition("=")[2] for part in self.query.split("&")]
        return tuple(raw) + tuple(value for _, value in parse_qsl(self.query))

    @property
    def _netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Check a base_url and take it apart. Messages repeat nothing that may be secret.

    Raises:
        ConfigError: It is not the http(s) address of an API, or contains a user name or password.
    """
    if re.search(r"[\s\\\x00-\x1f\x7f]", url):
        raise ConfigError("base_url contains a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower().removesuffix(".")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"base_url is not a valid address: {_without_url(error)}") from error
    if parts.scheme not in _PORTS:
        raise ConfigError(f"base_url '{_before_query(url)}' must start with http:// or https://")
    if "@" in parts.netloc:
        raise ConfigError(
            "base_url contains a user name or password (before '@'), which is not sent; "
            "remove it and set the key in the provider's variable, for others CLM_DATA_API_KEY"
        )
    if not _HOST.match(host) or any(not 0 < len(part) < 64 for part in host.split(".")):
        raise ConfigError(
            f"base_url has no valid host name: '{host}'; write it in ASCII, as in "
            "https://host.example/v1"
        )
    if port == 0:
        raise ConfigError("base_url has port 0; give the port of the API or none")
    if parts.fragment:
        raise ConfigError("base_url contains '#'; remove it and what follows, or write it as %23")
    path = parts.path.rstrip("/")
    if path.endswith("/chat/completions"):
        raise ConfigError("base_url must end before /chat/completions, which is added")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], path, parts.query)


def check_recipient(
    address: Address, provider: str, key_variable: str, origins: Collection[tuple[str, str, int]]
) -> None:
    """Refuse to send a provider's key to an address that is not the provider's.

    Raises:
        ConfigError: The address has another host or port, or http in place of https.
    """
    if address.origin in origins:
        return
    hosts = sorted({host for _, host, _ in origins})
    if address.host in hosts:
        own = next(origin for origin in sorted(origins) if origin[1] == address.host)
        raise ConfigError(
            f"base_url {address.shown}: {key_variable} is sent only to "
            f"{Address(*own, path='').shown}; use that scheme and port"
        )
    raise ConfigError(
        f"base_url {address.shown} is not an address of {provider} ({', '.join(hosts)}), so "
        f"{key_variable} is not sent to it; use --provider custom (or 'provider: custom' in "
        f"clm.yaml) and, if it needs a key, set CLM_DATA_API_KEY; or remove base_url to use "
        f"{provider} itself"
    )


def shown_target(location: str, base: str) -> str:
    """Where a redirect leads, without its query and fragment."""
    try:
        parts = urlsplit(location)
        if not parts.netloc:
            here = urlsplit(base)
            parts = SplitResult(here.scheme, here.netloc, parts.path or here.path, "", "")
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an invalid address"
    return urlunsplit((parts.scheme or urlsplit(base).scheme, host, parts.path, "", ""))


def _before_query(url: str) -> str:
    """A URL of unknown form up to its query, without a user name."""
    return re.split(r"[?#]", url)[0].rpartition("@")[2]


def _without_url(error: ValueError) -> str:
    """The reason of :func:`urllib.parse.urlsplit`, which may end with a part of the URL."""
    return re.split(r"[:'\"]", str(error))[0]
