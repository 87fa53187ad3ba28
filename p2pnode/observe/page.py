"""The page that a node serves to its owner: a few files, and a policy by which the browser asks nobody else.

It reads and changes nothing. All that peers can have a say in, their names above all, gets onto it as text.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from aiohttp import web

ASSETS = Path(__file__).parent / "assets"

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path → file and type."""

_DIGITS_MAX = 18
"""Of a number of a step: as many as any machine counts with."""

HEADERS = {
    # Plotly sets styles of its own, and shows heat maps as images that it drew.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: web.Application) -> None:
    """Serve the page and all that it needs."""
    for path, (name, kind) in FILES.items():
        app.router.add_get(path, partial(_send, ASSETS / name, kind))
    app.router.add_get("/plotly.js", _send_plotly)


def since_of(request: web.Request) -> int:
    """The step that `?since=STEP` asks from; 0 without it.

    Raises:
        HTTPBadRequest: if it is none.
    """
    text = request.query.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise web.HTTPBadRequest(text="since: not a step. Remedy: write ?since=STEP, from 0\n")
    return int(text)


def plotly_file() -> Path | None:
    """Plotly's JavaScript, as its Python package brings it; None where that is not installed."""
    spec = find_spec("plotly")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "package_data" / "plotly.min.js"


async def _send(file: Path, kind: str, _: web.Request) -> web.FileResponse:
    response = web.FileResponse(file, headers=HEADERS)
    response.content_type, response.charset = kind, "utf-8"
    return response


async def _send_plotly(request: web.Request) -> web.FileResponse:
    file = plotly_file()
    if file is None or not file.exists():
        raise web.HTTPNotFound(text="plotly is not installed. Remedy: pip install plotly\n")
    return await _send(file, "text/javascript", request)
