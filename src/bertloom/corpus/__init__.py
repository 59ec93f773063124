"""Prepared text: plain arrays on disk, and examples as pure functions of (seed, index)."""

from bertloom.corpus.arrays import Corpus
from bertloom.corpus.order import Draw

__all__ = ["Corpus", "Draw"]
