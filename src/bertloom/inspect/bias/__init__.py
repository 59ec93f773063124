"""Bias made visible: published procedures, one file each, with intervals, before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bertloom.inspect.bias.association import Association
from bertloom.inspect.bias.crows import CrowsPairs
from bertloom.inspect.bias.stereoset import StereoSet
from bertloom.inspect.bias.suite import Figure, Row, Suite, measured
from bertloom.inspect.bias.template import Template
from bertloom.inspect.bias.winobias import WinoBias

SUITES: dict[str, Callable[[], Suite[Any]]] = {
    "crows-pairs": CrowsPairs,
    "stereoset": StereoSet,
    "winobias": WinoBias,
    "seat": lambda: Association(sentences=True),
    "weat": lambda: Association(sentences=False),
}

__all__ = ["SUITES", "Figure", "Row", "Suite", "Template", "measured"]
