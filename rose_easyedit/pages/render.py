"""Templates turned into pages; everything that came from a model or a user is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

_BASE = ("rose_easyedit.pages", "base")


def render_page(package: str, name: str, *, scripts: Sequence[str] = (), **values: Any) -> str:
    """A whole page, with its style and script inside it.

    The page may load nothing: its policy allows what is written in it and pictures that are.

    Args:
        package: Where `<name>.html` is, which extends `base.html`; `<name>.css` and `<name>.js`
            beside it are put into the page as they are.
        name: Of the template.
        scripts: Names of the scripts, in their order, where they are others than `<name>.js`.
        values: What the template names, with "title".
    """
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    templates = {
        "base.html": _read(*_BASE, "html"),
        f"{name}.html": _read(package, name, "html"),
    }
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    style = _read(*_BASE, "css") + _read(package, name, "css")
    script = "".join(_read(package, one, "js") for one in scripts or [name])
    return environment.get_template(f"{name}.html").render(
        style=Markup(style), script=Markup(script), **values
    )


def _read(package: str, name: str, suffix: str) -> str:
    """The file's text; style and script may be missing."""
    file = resources.files(package) / f"{name}.{suffix}"
    return "" if suffix != "html" and not file.is_file() else file.read_text("utf-8")
