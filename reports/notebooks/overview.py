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
from IPython.display import Image, display

from depthbench.reports import effects, pareto, pictures, plots, theme
from depthbench.reports.load import COLUMNS, load_run
from depthbench.reports.summary import summary_notes, summary_rows

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
# Latency in milliseconds at batch 1; `~` marks a prediction, a triangle a compressed form that is slower or hardly faster than
# its parent, with the number of the reason.

# %%
display(summary_rows(cells).style.hide(axis="index"))
for line in summary_notes(cells):
    print(line)

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
# `best` is the fastest cell whose RMSE is at most 5 % above that of the most accurate one on that target.

# %%
for front in fronts:
    choice = pareto.choose(front)
    shown = pd.DataFrame({"best": choice.best, "most accurate": choice.most_accurate, "fastest": choice.fastest})
    print(plots.front_title(front))
    columns = ["model", "recipe", "height", "width", "latency_ms", "rmse_m", "delta1", "gmacs", "size_mb"]
    display(shown.loc[[*columns, "speedup", "not_faster", "why_not_faster"]])
    display(pareto.families(front))

# %% [markdown]
# ## What compression brought
#
# Latency of the uncompressed form divided by that of the compressed one: below 1 is slower.

# %%
for target in cells.loc[cells["speedup"].notna(), "target"].unique():
    display(Image(theme.png(effects.draw_speedups(cells, target))))

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
    "not_faster",
    "why_not_faster",
]
display(cells.loc[cells["speedup"].notna(), columns].sort_values("speedup").head(15))

# %% [markdown]
# ## Pictures

# %%
panel = pictures.panel(loaded)
if panel is not None:
    display(Image(theme.png(pictures.draw_panel(panel)[0, 0])))

# %% [markdown]
# ## The columns

# %%
rows = [(name, unit, meaning) for name, (_, unit, meaning) in COLUMNS.items()]
display(pd.DataFrame(rows, columns=["column", "unit", "meaning"]).style.hide(axis="index"))
