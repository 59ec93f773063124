"""One HTML page that needs nothing else: `page.html` with the style, the script and the numbers in it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

# Arrays as a page holds them, by name: type, shape, and gzipped bytes in base 64.
Arrays = dict[str, dict[str, Any]]


def page(about: Mapping[str, Any], arrays: Arrays, live: bool = False) -> str:
    """The page; `live` is whether a server answers it."""
    data = json.dumps({**about, "live": live, "arrays": arrays}, ensure_ascii=False, separators=(",", ":"))
    made = _file("page.html")
    # The user's text comes last, which may spell one of the others.
    for name, part in (("STYLE", _file("page.css")), ("SCRIPT", _file("page.js")), ("DATA", _inside(data))):
        made = made.replace(f"{{{{{name}}}}}", part, 1)
    return made


def packed(array: npt.NDArray[Any]) -> dict[str, Any]:
    """An array as a page holds it."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(gzip.compress(little.tobytes(), 6, mtime=0)).decode()
    return {"type": array.dtype.str[1:], "shape": list(array.shape), "data": data}


def sized(arrays: Arrays) -> int:
    """Bytes that arrays take on a page."""
    return sum(len(one["data"]) for one in arrays.values())


def _inside(data: str) -> str:
    """JSON that no HTML reader takes for the end of its script."""
    return data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
