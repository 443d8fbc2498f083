"""Notebooks of the report, as jupytext sources; a report executes them with its run as parameter."""
