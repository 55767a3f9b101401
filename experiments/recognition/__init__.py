"""Recipes of ``seqjax.models.recognition``."""
