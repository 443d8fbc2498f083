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
# # What each part of the network buys
#
# The suite trained one model several times: as it is, and with one option changed at a time. Everything else is the same:
# data, recipe, budget, seeds.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

from depthbench.reports import ablation, theme
from depthbench.reports.load import load_run
from depthbench.reports.readable import plain

# %% tags=["parameters"]
run = "."

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))

loaded = load_run(Path(run))
found = ablation.ablations(loaded)
if not found:
    print("This run trained no models of its own, so there is nothing to compare.")

# %% [markdown]
# ## The table
#
# RMSE and δ1 are means over seeds (least to greatest seed). The change is against the full model, paired by seed and image,
# with a 95% bootstrap interval over images: above 0 the part helps. `?` marks a change that is no finding: the interval holds
# 0, or the seeds do not agree. Attention is the projections and products alone; transformer counts its feed-forward, too.

# %%
for one in found:
    print(f"{one.model} at {one.size[0]}×{one.size[1]}, {one.dataset} ({one.protocol}), {one.samples} samples each")
    display(plain(ablation.shown(one)))

# %% [markdown]
# ## The change of RMSE

# %%
for one in found:
    if "rmse_change_m" not in one.table:
        continue
    rows = one.table[one.table["rmse_change_m"].notna()].iloc[::-1]
    figure, ax = plt.subplots(figsize=(6, 0.45 * len(rows) + 1.2), layout="constrained")
    change = rows["rmse_change_m"].to_numpy()
    reach = np.abs(rows[["rmse_change_lo_m", "rmse_change_hi_m"]].to_numpy().T - change)
    ax.errorbar(change, rows["variant"], xerr=np.nan_to_num(reach), fmt="o")
    ax.axvline(0, linewidth=1, color="0.5")
    ax.set_xlabel(f"RMSE against the full model [m] on {one.dataset} ({one.protocol}), 95% interval")
    plt.show()

# %% [markdown]
# Every number is in `ablation.csv`.
