"""Says on the local network where this node listens, and hears where others say so: multicast DNS (RFC 6762).

An announcement is a service `_p2pnode._tcp` with the node's name, the fingerprint of its public key, and its port. It
is not signed, and nobody believes it: see `p2pnode.net.whereabouts`.
"""

import asyncio
import secrets
import socket
from typing import Any

from p2pnode.errors import ConfigError, LinkError
from p2pnode.net.whereabouts import Whereabouts
from p2pnode.settings import split_address

_TYPE = "_p2pnode._tcp.local."

_LOOKUPS_MAX = 16
"""Announcements that are looked into at once; what is announced meanwhile is not: a flood costs no more than that."""

_LOOKUP_MS = 3000
"""What RFC 6762 lets a responder wait, several times over."""

_EVERYWHERE = "0.0.0.0"


def check_installed() -> None:
    """See that the library is there.

    Raises:
        ConfigError: if it is not.
    """
    try:
        import zeroconf  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "discovery = 'mdns' needs zeroconf. Remedy: pip install p2pnode[discovery], or set it to \"none\""
        ) from error


class Announcer:
    """Announces one node, and listens for announcements, from `start` to `stop`.

    Args:
        name: the node's.
        key: fingerprint of its public key.
        listen: host:port where it listens; 0.0.0.0 for all of this machine's addresses.
        whereabouts: takes what is heard.
    """

    def __init__(self, name: str, key: str, listen: str, whereabouts: Whereabouts) -> None:
        self._name = name
        self._key = key
        self._host, self._port = split_address(listen)
        self._whereabouts = whereabouts
        self._lookups: set[asyncio.Task[None]] = set()
        self._zeroconf: Any = None

    async def start(self) -> None:
        """Begin.

        Raises:
            LinkError: if this machine's network does not let it.
        """
        from zeroconf import InterfaceChoice, IPVersion, ServiceInfo, get_all_addresses
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        everywhere = self._host == _EVERYWHERE
        try:
            here = get_all_addresses() if everywhere else [socket.gethostbyname(self._host)]
            interfaces = InterfaceChoice.All if everywhere else here
            self._zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        except OSError as error:
            raise LinkError(f"cannot announce by mdns: {error}; set discovery to none, or mend the network") from error
        # A name of its own, so that nobody can keep the node from it by taking it first.
        info = ServiceInfo(
            _TYPE,
            f"{secrets.token_hex(8)}.{_TYPE}",
            port=self._port,
            parsed_addresses=here,
            properties={"name": self._name, "key": self._key},
        )
        await self._zeroconf.async_register_service(info)
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, _TYPE, handlers=[self._changed])

    async def stop(self) -> None:
        """Say goodbye, and hear no more."""
        for task in self._lookups:
            task.cancel()
        await asyncio.gather(*self._lookups, return_exceptions=True)
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()

    def _changed(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:  # noqa: ANN401
        from zeroconf import ServiceStateChange

        if state_change is not ServiceStateChange.Removed and len(self._lookups) < _LOOKUPS_MAX:
            task = asyncio.get_running_loop().create_task(self._look_into(zeroconf, name))
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)

    async def _look_into(self, zeroconf: Any, name: str) -> None:  # noqa: ANN401
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(_TYPE, name)
        if not await info.async_request(zeroconf, _LOOKUP_MS):
            return
        key = info.decoded_properties.get("key")
        for host in info.parsed_addresses(IPVersion.V4Only):
            if key and info.port:
                self._whereabouts.hear(key, f"{host}:{info.port}")
