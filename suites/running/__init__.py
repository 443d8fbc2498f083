"""Carrying out a plan: the graph of tasks, local and distributed workers, exclusive measuring, records."""
