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
import pandas as pd
from IPython.display import display

from depthbench.reports import effects, pareto, pictures, plots, theme
from depthbench.reports.load import COLUMNS, load_run
from depthbench.reports.summary import summary_rows

# %% tags=["parameters"]
run = "."

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))
pd.set_option("display.max_rows", 200, "display.max_columns", 60)

loaded = load_run(Path(run))
cells = loaded.cells
families = list(cells["family"].unique())
display(cells.groupby(["target", "status"]).size().unstack(fill_value=0))

# %% [markdown]
# ## Summary
#
# Latency in milliseconds at batch 1; `~` marks a prediction, `*` a compressed form that is slower than its parent.

# %%
display(summary_rows(cells).style.hide(axis="index"))

# %% [markdown]
# ## Accuracy against latency
#
# A cell is on the front when no other cell of the same target and data is both faster and more accurate. Measured and
# predicted latencies are never joined into one front.

# %%
fronts = pareto.fronts(cells)
for front in fronts:
    figure, ax = plt.subplots(figsize=(6.6, 5.2), layout="constrained")
    plots.draw_front(front, ax, families=families)
    plt.show()

# %% [markdown]
# ## What to take
#
# `best` is the fastest cell whose RMSE is at most 5 % above that of the most accurate one on that target.

# %%
for front in fronts:
    choice = pareto.choose(front)
    shown = pd.DataFrame({"best": choice.best, "most accurate": choice.most_accurate, "fastest": choice.fastest})
    print(plots.front_title(front))
    display(shown.loc[["model", "recipe", "height", "width", "latency_ms", "rmse_m", "delta1", "gmacs", "size_mb"]])
    display(pareto.families(front))

# %% [markdown]
# ## What compression brought
#
# Latency of the uncompressed form divided by that of the compressed one: below 1 is slower.

# %%
for target in cells.loc[cells["speedup"].notna(), "target"].unique():
    figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
    effects.draw_speedups(cells, target, ax)
    plt.show()

# %%
columns = [
    "model",
    "recipe",
    "target",
    "parent_recipe",
    "speedup",
    "rmse_change_m",
    "rmse_change_lo_m",
    "rmse_change_hi_m",
]
display(cells.loc[cells["speedup"].notna(), columns].sort_values("speedup").head(15))

# %% [markdown]
# ## Pictures

# %%
panel = pictures.panel(loaded)
if panel is not None:
    display(pictures.draw_panel(panel)[0, 0].figure)

# %% [markdown]
# ## The columns

# %%
rows = [(name, unit, meaning) for name, (_, unit, meaning) in COLUMNS.items()]
display(pd.DataFrame(rows, columns=["column", "unit", "meaning"]).style.hide(axis="index"))
