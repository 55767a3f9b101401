"""Recipes of ``seqjax.models.translation``."""
