"""Recipes of ``seqjax.models.language``."""
