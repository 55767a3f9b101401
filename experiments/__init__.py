"""Recipes: one per system, each a command. ``python -m experiments`` lists them."""
