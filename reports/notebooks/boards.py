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
import pandas as pd
from IPython.display import Image, display

from depthbench.reports import decide, effects, pareto, payoff, published, theme
from depthbench.reports.load import load_run

# %% tags=["parameters"]
run = "."
fps = 30.0
confidence = 0.9

# %%
plt.rcParams.update(theme.rc(theme.LIGHT))
pd.set_option("display.max_rows", 200, "display.max_columns", 60)

loaded = load_run(Path(run))
cells = loaded.cells
done = cells[cells["status"] == "ok"]
targets = list(done["target"].unique())
display(cells.groupby(["target", "status"]).size().unstack(fill_value=0))

# %% [markdown]
# ## Latency on every device
#
# Milliseconds at batch 1; which devices were measured and which predicted stands in the first table. A triangle marks a form
# that is slower or hardly faster than its parent on that device, with the number of the reason.

# %%
display(done.groupby("target")["latency_kind"].unique().map(", ".join).rename("latency").to_frame())
places = ["model", "recipe", "height", "width"]
notes = payoff.Notes(done)
marked = done.assign(marked=[f"{cell['latency_ms']:.6f} {notes.mark(cell)}" for _, cell in done.iterrows()])
display(marked.pivot_table(index=places, columns="target", values="marked", aggfunc="first", sort=False))
for line in notes.lines():
    print(line)

# %% [markdown]
# ## What to deploy at `fps`
#
# A cell fits when its latency keeps the frame rate in at least `confidence` of the bootstrap draws.

# %%
rows = []
for target in targets:
    here = done[done["target"] == target]
    for dataset in (here["dataset"] + " (" + here["protocol"] + ")").unique():
        decision = decide.choose_cell(loaded, decide.Wish(target, fps=fps, confidence=confidence, dataset=dataset))
        best, other = decision.best, decision.runner_up
        rows.append(
            {
                "target": target,
                "data": dataset,
                "fit": decision.fitting,
                "take": best.name if best else "nothing fits",
                "rmse_m": best.row["rmse_m"] if best else None,
                "latency_ms": best.row["latency_ms"] if best else None,
                "not_faster": best.row["not_faster"] if best else None,
                "why_not_faster": best.row["why_not_faster"] if best else "",
                "sure": decision.sure,
                "runner-up": other.name if other else "",
            }
        )
display(pd.DataFrame(rows))

# %% [markdown]
# ## Share of the front by family
#
# Hypervolume: how much of what the whole front spans a family dominates alone, with its 95 % interval.

# %%
for front in pareto.fronts(cells):
    print(f"{front.target}, {front.latency_kind} latency")
    assert loaded.draws is not None
    display(pareto.hypervolumes(front, loaded.draws))

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
