"""What a running node answers its owner."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from p2pnode.errors import P2PNodeError
from p2pnode.home import Home

PATIENCE_S = 5.0
"""For so long one node is asked: it answers within milliseconds, unless it is stopped or its machine is."""


def ask(home: Home, what: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """What the node of a home answers; of `/readyz` also that it is not ready.

    Raises:
        P2PNodeError: if none answers.
    """
    if not home.path.is_dir():
        raise P2PNodeError(f"no node answers for {home.path}: no such folder. Remedy: name the home of a node")
    try:
        address = home.admin.read_text().strip()
        with urllib.request.urlopen(f"http://{address}{what}", timeout=patience_s) as answer:
            told: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        told = json.load(error)
    except FileNotFoundError as error:
        raise P2PNodeError(
            f"no node answers for {home.path}: none runs; start it with `p2pnode run {home.path}`"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise P2PNodeError(
            f"no node answers for {home.path} ({error}); start it with `p2pnode run {home.path}`"
        ) from error
    return told
