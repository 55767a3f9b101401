"""Sequences of words, digits and sounds from sequences."""
