"""HTML pages from Jinja2 templates, autoescaped: of the page and of all reports, in one design.

`templates/document.html` is the frame, `report_base.html` that of reports, `parts.html` has what they are made of;
`static/harken.css` is the stylesheet.
"""

from __future__ import annotations

import base64
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harken.core.errors import HarkenError
from harken.core.version import __version__


def render(package: str, template: str, **values: Any) -> str:
    """Render `templates/<template>` of a package with `values`; it may extend and import those of this package."""
    return _environment(package).get_template(template).render(version=__version__, **values)


def check_page(path: Path) -> None:
    """Raise HarkenError where a page would replace something else: the name is not that of a page, or a device."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise HarkenError("is no name of a page", file=path, next_step="Name an .html file")
    if path.exists() and not path.is_file():
        raise HarkenError("is not a regular file", file=path, next_step="Name another .html file")


def data_url(data: bytes, media_type: str) -> str:
    """Data URL, such as `data:image/png;base64,...`."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@cache
def stylesheet() -> Markup:
    """The stylesheet, for a report that has no other file."""
    return Markup(files("harken.core").joinpath("static", "harken.css").read_text(encoding="utf-8").strip())


@lru_cache(maxsize=8)
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("harken.core")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["stylesheet"] = stylesheet
    return environment
