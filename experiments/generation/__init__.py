"""Recipes of ``seqjax.models.generation``."""
