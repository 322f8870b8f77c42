"""`tltool cache`: how large the feature store is, and emptying it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.printing.words import describe_age, describe_size

if TYPE_CHECKING:
    from tl_toolkit.features.shards import Shard


@click.group("cache")
def cache_command() -> None:
    """Show and empty the feature store: outputs of frozen networks, kept between runs."""


@cache_command.command("info", short_help="List what is stored for each base and data.")
@click.option("--json", "as_json", is_flag=True, help="Print folder, bytes and entries as JSON.")
def show_info(as_json: bool) -> None:
    """List what is stored for each base and data, the least recently used first.

    What was used least recently is deleted first where room is needed.
    """
    from tl_toolkit.features.store import FeatureCache

    cache = FeatureCache()
    shards = cache.shards()
    total = sum(shard.size for shard in shards)
    if as_json:
        entries = [
            {
                "path": str(shard.path),
                "bytes": shard.size,
                "images": shard.images,
                "used": shard.used,
                "made_by": shard.made_by,
                "data": shard.data,
            }
            for shard in shards
        ]
        show_json({"folder": str(cache.root), "bytes": total, "entries": entries})
        return
    groups: dict[tuple[str, str], list[Shard]] = {}
    for shard in shards:
        groups.setdefault((shard.made_by.partition(" before ")[0], shard.data), []).append(shard)
    rows = [
        [
            base,
            data or "unknown",
            len(group),
            Figure(describe_size(sum(shard.size for shard in group))),
            describe_age(group[-1].used),
        ]
        for (base, data), group in sorted(groups.items(), key=lambda item: item[1][-1].used)
    ]
    if rows:
        show(build_table(["base", "images of", "entries", "size", "last used"], rows))
    print_message(f"{describe_size(total)} in {cache.root}")


@cache_command.command("clear", short_help="Delete all that is stored.")
def clear_cache() -> None:
    """Delete all that is stored; it is computed again when it is needed."""
    from tl_toolkit.features.store import FeatureCache

    cache = FeatureCache()
    count, size = cache.clear()
    entries = "1 entry" if count == 1 else f"{count} entries"
    print_message(f"{entries} deleted, {describe_size(size)}, from {cache.root}")
