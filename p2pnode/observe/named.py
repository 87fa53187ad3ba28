"""Who may read what a node tells its owner: only a client that asked for it by a name which is this node's.

A browser keeps the pages of one host from reading another's. Whoever owns a domain can undo that for an address which
his visitors reach and he does not: a moment after his page was fetched, he lets the domain resolve to it ("DNS
rebinding"). The browser then takes the node for his host, and lets his page read it; but the request names his domain.

So a request must name the node by what it is told to be called, by `localhost`, or by any IP address: an address is
resolved by nobody, so that no page of another host can be one. What names nobody comes from no browser.
"""

from collections.abc import Collection
from ipaddress import ip_address

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

_REFUSED = "not a name of this node. Remedy: ask by its address, or add the name to `admin_names` in node.toml\n"


def only_by_name(names: Collection[str]) -> Middleware:
    """Refuses requests that name another host than these, `localhost` and IP addresses, with 421."""
    known = {"localhost", *map(_folded, names)}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        for host in request.headers.getall(hdrs.HOST, ()):
            name = _folded(_without_port(host))
            if name not in known and not _is_address(name):
                raise web.HTTPMisdirectedRequest(text=_REFUSED)
        return await handler(request)

    return check


def _folded(name: str) -> str:
    """One spelling of a name: DNS tells neither case nor the dot at the end apart."""
    return name.lower().removesuffix(".")


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdecimal() or not port else host


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
