"""Benchmarks: each module a command that prints a table and writes JSON."""
