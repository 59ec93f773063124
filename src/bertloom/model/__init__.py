"""Packed batches, attention, encoder and heads."""
