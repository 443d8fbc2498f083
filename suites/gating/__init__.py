"""What the efficiency gate needs of artefacts: their facts, how they are built, timed and scored.

The judgement on these numbers is :mod:`depthbench.reports.gate`'s; this package only gathers them, and loads no torch.
"""
