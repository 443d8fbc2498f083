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
# # Device by device
#
# What each target can do with these networks, where the time goes, and what to deploy at a frame rate.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image, display

from depthbench.reports import effects, pareto, published, theme
from depthbench.reports.load import load_run
from depthbench.reports.payoff import Notes
from depthbench.reports.readable import decisions, fastest, plain, shares

# %% tags=["parameters"]
run = "."
fps = 30.0
confidence = 0.9

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))

loaded = load_run(Path(run))
cells = loaded.cells
done = cells[cells["status"] == "ok"]
targets = list(done["target"].unique())
display(cells.groupby(["target", "status"]).size().unstack(fill_value=0))

# %% [markdown]
# ## The fastest form of every network on every device
#
# Milliseconds at batch 1, and the recipe; `≈` marks a prediction, a triangle a form that is slower or hardly faster than its
# parent on that device, with the number of the reason. All forms are in `cells.csv`.

# %%
notes = Notes(done)
display(plain(fastest(done, notes)))
print(*notes.lines(), sep="\n")

# %% [markdown]
# ## What to deploy at `fps`
#
# A cell fits when its latency keeps the frame rate in at least `confidence` of the bootstrap draws. `sure`: the share of draws
# in which the cell fits and no other that fits is more accurate.

# %%
display(plain(decisions(loaded, notes, fps=fps, confidence=confidence)))

# %% [markdown]
# ## Share of the front by family
#
# Hypervolume: how much of what the whole front spans a family dominates alone, with its 95% interval.

# %%
display(plain(shares(loaded, pareto.fronts(cells), notes)))

# %% [markdown]
# ## Where the time goes

# %%
for target in targets:
    if len(effects.class_times(loaded, target)):
        display(Image(theme.png(effects.draw_classes(loaded, target))))

# %% [markdown]
# ## How the measurements spread

# %%
for target in targets:
    if len(effects.latency_samples(loaded, target)):
        display(Image(theme.png(effects.draw_latencies(loaded, target))))

# %% [markdown]
# ## Published points
#
# For orientation: other authors' runtimes, inputs and data.

# %%
for target in targets:
    for point in published.published_on(target):
        print(f"{target}: {published.described(point)}")
