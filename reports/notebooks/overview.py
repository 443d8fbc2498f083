# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A run of depthbench, step by step
#
# Every number here is derived from the run's raw records. Change a cell and run it again to ask your own question:
# `cells` is one tidy table with a row per model × recipe × input size × target.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image, display

from depthbench.reports import effects, pareto, pictures, plots, theme
from depthbench.reports.load import load_run
from depthbench.reports.payoff import Notes
from depthbench.reports.readable import picks, plain, smallest_input
from depthbench.reports.summary import data_names, summary_notes, summary_rows

# %% tags=["parameters"]
run = "."

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))

loaded = load_run(Path(run))
cells = loaded.cells
families = list(cells["family"])
display(cells.groupby(["target", "status"]).size().unstack(fill_value=0))

# %% [markdown]
# ## Summary
#
# The forms at the smallest input; those at others are in `cells.csv`. Latency in milliseconds at batch 1; `~` marks a
# prediction, a triangle a compressed form that is slower or hardly faster than its parent, with the number of the reason.

# %%
small = smallest_input(cells)
print(f"Accuracy on {data_names(small)}")
display(plain(summary_rows(small)))
print(*summary_notes(small), sep="\n")

# %% [markdown]
# ## Accuracy against latency
#
# A cell is on the front when no other cell of the same target and data is both faster and more accurate. Measured and
# predicted latencies are never joined into one front.

# %%
fronts = pareto.fronts(cells)
for front in fronts:
    display(Image(theme.png(plots.draw_front(front, families=families))))

# %% [markdown]
# ## What to take
#
# `best` is the fastest cell whose RMSE is at most 5% above that of the most accurate one on that target.

# %%
notes = Notes(cells)
display(plain(picks(fronts, notes)))
print(*notes.lines(), sep="\n")

# %% [markdown]
# ## What compression brought
#
# Latency of the uncompressed form divided by that of the compressed one, at the smallest input: below 1 is slower.

# %%
for target in cells.loc[cells["speedup"].notna(), "target"].unique():
    display(Image(theme.png(effects.draw_speedups(cells, target))))

# %% [markdown]
# ## Pictures

# %%
panel = pictures.panel(loaded)
if panel is not None:
    display(Image(theme.png(pictures.draw_panel(panel)[0, 0])))

# %% [markdown]
# Every number of every cell is in `cells.csv`; `report.html` explains its columns.
