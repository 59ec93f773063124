"""Prepared text: plain arrays on disk, and examples as pure functions of (seed, index)."""

from bertloom.corpus.arrays import Corpus
from bertloom.corpus.draw import Draw
from bertloom.corpus.mixture import Mixture, Source, opened

__all__ = ["Corpus", "Draw", "Mixture", "Source", "opened"]
