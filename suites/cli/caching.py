"""``depthbench cache``: what lies in the cache, what of it is damaged, and making room."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from depthbench.suites.cli.listing import Json
from depthbench.suites.cli.output import err, out, print_json, print_table, stages

if TYPE_CHECKING:
    from depthbench.suites.storage.caches import Item

cache = typer.Typer(name="cache", help="What is kept in the cache folder: list, clean, verify.", no_args_is_help=True)

Area = Annotated[str | None, typer.Argument(help="Only this part of the cache, item by item.")]

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_UNITS_B = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


@cache.command()
def ls(area: Area = None, json: Json = False) -> None:
    """List what the cache holds, by part; with a part's name, its items."""
    from depthbench.suites.storage.cache import cache_dir
    from depthbench.suites.storage.caches import PLAIN, STORES, contents

    items = _of(contents(), area)
    if area is not None:
        rows = [_row(item) for item in sorted(items, key=lambda item: -item.used)]
        if json:
            print_json({"cache": str(cache_dir()), "items": rows})
        else:
            print_table(f"{area} in {cache_dir()}", [{k: v for k, v in row.items() if k != "area"} for row in rows])
        return
    texts = STORES | PLAIN
    parts = [
        {
            "area": name,
            "what": texts.get(name, ""),
            "items": len(own),
            "size_mb": round(sum(item.size_bytes for item in own) / 1e6, 1),
            "seconds": round(sum(item.seconds or 0 for item in own), 1) or None,
            "last_used": _when(max(item.used for item in own)),
        }
        for name in dict.fromkeys(item.area for item in items)
        if (own := [item for item in items if item.area == name])
    ]
    size_mb = round(sum(item.size_bytes for item in items) / 1e6, 1)
    if json:
        print_json({"cache": str(cache_dir()), "size_mb": size_mb, "areas": parts})
    else:
        print_table(f"Cache {cache_dir()}", parts)
        out.print(f"{len(items)} items, {size_mb:g} MB")


@cache.command()
def gc(
    older_than: Annotated[
        str | None, typer.Option(help="Remove what was not used for this long: 90m, 12h, 30d, 8w.")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            help="Remove the longest unused until this much is left: 500MB, 20GB; nothing used in the last day goes."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Make room: remove what can be made again. Calibrations stay, and what a killed process left half-made always goes."""
    from depthbench.suites.storage.cache import cache_dir
    from depthbench.suites.storage.caches import chosen, contents, remove, tidy

    if older_than is None and max_size is None:
        raise ValueError("cache gc: give --older-than (30d), --max-size (20GB) or both")
    age = None if older_than is None else _parsed(older_than, _UNITS_S, "--older-than", "30d")
    limit = None if max_size is None else _parsed(max_size, _UNITS_B, "--max-size", "20GB")
    items = contents()
    going = chosen(items, older_than_s=age, max_bytes=limit)
    half_made = 0
    if not dry_run:
        half_made = tidy()
        with stages() as progress:
            for done, item in enumerate(going):
                remove(item)
                progress("removing", done + 1, len(going))
    freed = sum(item.size_bytes for item in going)
    left = sum(item.size_bytes for item in items) - freed
    if json:
        print_json(
            {
                "cache": str(cache_dir()),
                "dry_run": dry_run,
                "removed": [_row(item) for item in going],
                "half_made": half_made,
                "freed_mb": round(freed / 1e6, 1),
                "left_mb": round(left / 1e6, 1),
            }
        )
    else:
        if going:
            print_table("Would be removed" if dry_run else "Removed", [_row(item) for item in going])
        out.print(
            f"{len(going)} items{' would go' if dry_run else ' removed'}, {freed / 1e6:.1f} MB; {left / 1e6:.1f} MB left",
        )
    if limit is not None and left > limit:
        err.print(
            f"still more than {max_size}: the rest was used in the last day or is never removed",
        )


@cache.command()
def verify(
    area: Area = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is damaged; it is made again when needed.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare every file of the stores with its digest and name the damaged; exit code 1 when there are any.

    Images and calibrations have no digests: of these only files that cannot be read are found.
    """
    from depthbench.suites.storage.caches import contents, faults, remove

    items = _of(contents(), area)
    with stages() as progress:
        found = faults(items, lambda done, total: progress("verifying", done, total))
    if delete:
        for item, _ in found:
            remove(item)
    if json:
        damaged = [{**_row(item), "fault": fault} for item, fault in found]
        print_json({"checked": len(items), "damaged": damaged, "deleted": delete})
    else:
        for item, fault in found:
            out.print(f"{item.area}/{item.name}: {fault}")
        out.print(
            f"{len(items)} items checked, {len(found)} damaged{' and removed' if delete and found else ''}",
        )
    if found:
        raise typer.Exit(1)


def _of(items: Sequence[Item], area: str | None) -> list[Item]:
    from depthbench.suites.names import lookup
    from depthbench.suites.storage.caches import PLAIN, STORES

    if area is None:
        return list(items)
    lookup("part of the cache", area, dict.fromkeys([*STORES, *PLAIN, *(item.area for item in items)]))
    return [item for item in items if item.area == area]


def _row(item: Item) -> dict[str, Any]:
    return {
        "area": item.area,
        "name": item.name,
        "size_mb": round(item.size_bytes / 1e6, 3),
        "seconds": item.seconds,
        "last_used": _when(item.used),
        "about": item.about,
    }


def _when(used: float) -> str:
    return datetime.fromtimestamp(min(used, time.time()), UTC).isoformat(timespec="seconds")


def _parsed(text: str, units: dict[str, float], option: str, example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
    unit = next((unit for unit in units if match and unit.lower() == match[2].lower()), None)
    if match is None or unit is None:
        raise ValueError(f"{option} {text}: give a number with a unit ({', '.join(units)}), for example {example}")
    return float(match[1]) * units[unit]
