"""Telling what an image shows."""
