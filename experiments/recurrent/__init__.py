"""Recipes for recurrent networks on problems that probe their memory."""
