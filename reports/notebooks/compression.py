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
from IPython.display import Image, display

from depthbench.reports import damage, strips, theme
from depthbench.reports.load import load_run
from depthbench.reports.payoff import Notes
from depthbench.reports.readable import gains, lost, plain, smallest_input

# %% tags=["parameters"]
run = "."

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))

loaded = load_run(Path(run))
cells = loaded.cells
compressed = cells[cells["parent_recipe"] != ""]

# %% [markdown]
# ## Gain and loss
#
# Forms at the smallest input; those at others are in `cells.csv`. A speed-up below 1 is slower, an RMSE change above 0 is
# worse; an interval that holds 1, or 0, leaves it open. A triangle marks a form that did not pay, with the number of the
# reason.

# %%
for target in compressed["target"].unique():
    here = smallest_input(compressed[compressed["target"] == target])
    notes = Notes(here)
    kinds, parents = (" or ".join(here[name].unique()) for name in ("latency_kind", "parent_recipe"))
    print(f"{target}: {kinds} latency, against {parents}")
    display(plain(gains(here, notes)))
    print(*notes.lines(), sep="\n")

# %% [markdown]
# ## Where the accuracy went
#
# RMSE added at each distance and near depth edges, paired per image; then the greatest losses with their 95% intervals.

# %%
where = damage.damage(loaded)
if len(where):
    display(Image(theme.png(damage.draw_damage(loaded))))
    notes = Notes(where)
    display(plain(lost(where, notes)))
    print(*notes.lines(), sep="\n")

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
