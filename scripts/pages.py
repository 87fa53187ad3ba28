"""What the site has beside docs/*.md, for mkdocs: `scripts/docs` builds it.

The README is its front page, the changelog and the contributor's page are in it, and so is every file of the sources
that a page links to: the links of the pages are those that work in the repository, and are followed from there.
"""

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs"
SOURCE = "source"

PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages outside docs/, and where the site has them."""

_LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=[)#\s])")
"""Where a link leads in the repository."""

_LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
"""What a browser would ask another machine for by itself."""

_LANGUAGES = {".md": "markdown", ".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Pages that no section of the menu names come last in it, so that a new one is in it by being there."""
    named = set(re.findall(r"[\w.-]+\.md", str(config.nav)))
    unnamed = sorted(file.name for file in (ROOT / DOCS).glob("*.md") if file.name not in named)
    if config.nav is not None and unnamed:
        config.nav.append({"More": unnamed})
    return config


def on_files(files: Files, config: "MkDocsConfig") -> Files:
    """Add what lies outside docs/: the pages that are named above, and each file that a page links to."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    for path in sorted({path for page in _pages() for path in _led_to(page) if path not in PAGES}):
        if not path.startswith(f"{DOCS}/"):
            files.append(File.generated(config, _uri(path), content=_listing(path)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: Files) -> str:
    """Make the links of a page lead to where the site has what they lead to in the repository."""
    uri = page.file.src_uri
    if uri.startswith(f"{SOURCE}/"):
        return markdown
    own = next((path for path, of in PAGES.items() if of == uri), f"{DOCS}/{uri}")

    def moved(link: re.Match[str]) -> str:
        path = _path(own, link["path"])
        return posixpath.relpath(_uri(path), posixpath.dirname(uri)) if (ROOT / path).exists() else link["path"]

    return _LINK.sub(moved, markdown)


def on_post_page(output: str, page: "Page", config: "MkDocsConfig") -> str:
    """Refuse a page that asks another machine for anything: it is read where there is no other, and by nobody else."""
    outside = _LOADED.search(output)
    if outside is not None:
        raise PluginError(f"{page.file.src_uri}: it loads {outside[1]}. Remedy: put that beside the page")
    return output


def _pages() -> list[str]:
    return [*PAGES, *(f"{DOCS}/{file.name}" for file in sorted((ROOT / DOCS).glob("*.md")))]


def _led_to(page: str) -> list[str]:
    """Where the links of a page lead, of what there is."""
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = (_path(page, link["path"]) for link in _LINK.finditer(text))
    return [path for path in paths if (ROOT / path).exists()]


def _path(page: str, link: str) -> str:
    """Where a link of a page leads, from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _uri(path: str) -> str:
    """Where the site has a file of the repository."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else f"{SOURCE}/{path}.md"


def _listing(path: str) -> str:
    """A page of a source file, or of the names in a folder."""
    place = ROOT / path
    if place.is_dir():
        lines, language = sorted(file.name + "/" * file.is_dir() for file in place.iterdir()), ""
    else:
        lines = place.read_text(encoding="utf-8").splitlines()
        language = _LANGUAGES.get(PurePosixPath(path).suffix, "bash" if lines[:1] and "bash" in lines[0] else "")
    return "\n".join([f"# {path}", "", f"~~~~~~{language}", *lines, "~~~~~~", ""])
