"""Plotly's script, as a part of a page that fetches nothing."""

from __future__ import annotations

from base64 import b64encode
from functools import cache


@cache
def packed_plotly() -> str:
    """The script that comes with the package `plotly`, compressed, as a page can hold it.

    The package has one bundle only, the whole of it; compressed it is two fifths of its size.
    """
    import gzip

    from plotly.offline import get_plotlyjs

    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
