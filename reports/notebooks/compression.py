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
# # What compression brought, and what it cost
#
# Every compressed cell is compared with the uncompressed form of the same network on the same target and input, and its
# accuracy with that form's on the same images, so that small differences show.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, display

from depthbench.reports import damage, effects, strips, theme
from depthbench.reports.load import load_run

# %% tags=["parameters"]
run = "."

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))
pd.set_option("display.max_rows", 200, "display.max_columns", 60)

loaded = load_run(Path(run))
cells = loaded.cells
compressed = cells[cells["parent_recipe"] != ""]

# %% [markdown]
# ## Gain and loss
#
# `speedup` below 1 is slower; `rmse_change_m` above 0 is worse. An interval that holds 1, or 0, leaves it open.

# %%
columns = ["model", "recipe", "height", "width", "target", "latency_kind", "parent_recipe", "size_mb"]
columns += ["speedup", "speedup_lo", "speedup_hi", "rmse_change_m", "rmse_change_lo_m", "rmse_change_hi_m"]
columns += ["not_faster", "why_not_faster"]
display(compressed[columns].sort_values("speedup", ascending=False))

# %% [markdown]
# ## Speed-up by network and recipe

# %%
for target in compressed.loc[compressed["speedup"].notna(), "target"].unique():
    display(Image(theme.png(effects.draw_speedups(cells, target))))

# %% [markdown]
# ## Where the accuracy went
#
# RMSE added at each distance and near depth edges, paired per image.

# %%
where = damage.damage(loaded)
if len(where):
    display(Image(theme.png(damage.draw_damage(loaded))))
display(where)

# %% [markdown]
# ## What INT8 changed in the pictures

# %%
changed = strips.draw_differences(strips.differences(loaded))
if changed is not None:
    display(Image(theme.png(changed)))

# %% [markdown]
# ## Sensitivity by layer group
#
# Where a recipe scanned it: accuracy against the share of a group that was taken away.

# %%
for model in damage.sensitivities(loaded)["model"].unique():
    display(Image(theme.png(damage.draw_sensitivities(loaded, model))))

# %% [markdown]
# ## Not faster than it was
#
# Compressed forms that are less than 1.2 times as fast as their parent, and why.

# %%
display(compressed.loc[compressed["not_faster"], [*columns, "flags"]])
