"""`tltool cache`: how large the feature store and the extracted images are; emptying the store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.arguments import takes_offline, takes_ray, takes_recipe, takes_workers
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.printing.words import describe_age, describe_size

if TYPE_CHECKING:
    from tl_toolkit.features.shards import Shard


@click.group("cache")
def cache_command() -> None:
    """Show, fill and empty the feature store: outputs of frozen networks, kept between runs.

    Images that runs took out of Parquet and TFRecord files are shown, and stay: runs that are
    finished read them.
    """


@cache_command.command("fill", short_help="Compute the features of a recipe's frozen part.")
@takes_recipe
@click.argument("overrides", nargs=-1)
@click.option("--threads", type=click.IntRange(min=1), help="Size of TensorFlow's thread pools.")
@takes_ray
@takes_workers
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print folder and counts as JSON.")
def fill_command(as_json: bool, **options: Any) -> None:
    """Compute and store what the frozen part of RECIPE makes of its images.

    Commands that train then read it. On a cluster each worker computes other parts of the images;
    hosts share the folder `features.location`.
    """
    from tl_toolkit.api.filling import fill_features

    facts = fill_features(**options, progress=current.print_events())
    if as_json:
        show_json(facts)
        return
    count, parts, seconds = facts["images"], facts["parts"], facts["seconds"]
    place = f"this host's cache, {facts['folder']}" if facts["unsent_to"] else facts["folder"]
    print_message(
        f"features of {count:,} images are stored, {parts:,} parts, in {place} ({seconds} s)"
    )
    if facts["unsent_to"]:
        print_message(
            f"offline nothing is sent: the next run of this recipe with a connection sends what "
            f"{facts['unsent_to']} lacks"
        )


@cache_command.command("info", short_help="List stored features, and count extracted images.")
@click.option("--json", "as_json", is_flag=True, help="Print folders, bytes and entries as JSON.")
def show_info(as_json: bool) -> None:
    """List what is stored for each base and data, the least recently used first.

    What was used least recently is deleted first where room is needed. Images that runs took out
    of Parquet and TFRecord files are counted below, and copies of what lies on object stores.
    """
    from tl_toolkit.features.store import FeatureCache

    cache = FeatureCache()
    shards = cache.shards()
    total = sum(shard.size for shard in shards)
    if as_json:
        show_json(
            {
                "folder": str(cache.root),
                "bytes": total,
                "entries": [_list_values(shard) for shard in shards],
                "extracted": _measure_extracted(),
                "objects": _measure_objects(),
                "copies": _measure_copies(),
                "shared": _measure_shared(),
            }
        )
        return
    if rows := _list_rows(shards):
        show(build_table(["base", "images of", "entries", "size", "last used"], rows))
    print_message(f"{describe_size(total)} in {cache.root}")
    for store in _measure_shared():
        unsent = f", {store['unsent']} of them not sent yet" if store["unsent"] else ""
        print_message(
            f"{_count_entries(store['entries'])} of {store['address']}, "
            f"{describe_size(store['bytes'])}, in {store['folder']}{unsent}"
        )
    _print_extracted("")
    objects = _measure_objects()
    if objects["objects"]:
        words = f"{objects['objects']} objects of stores, {describe_size(objects['bytes'])}"
        print_message(f"{words}, in {objects['folder']}")
    copies = _measure_copies()
    if copies["files"]:
        print_message(
            f"{_count_copies(copies['files'])}, {describe_size(copies['bytes'])}, in "
            f"{copies['folder']}"
        )


@cache_command.command(
    "clear", short_help="Delete stored features and what is here of object stores."
)
def clear_cache() -> None:
    """Delete all stored features, and what is here of object stores: all is made again when needed.

    Images that runs took out of Parquet and TFRecord files stay, and features that an object store
    lacks.
    """
    from tl_toolkit.features.copies import list_store_copies
    from tl_toolkit.features.store import FeatureCache
    from tl_toolkit.sources.copies import clear_copies
    from tl_toolkit.sources.object_cache import open_cache

    cache = FeatureCache()
    count, size = cache.clear()
    print_message(f"{_count_entries(count)} deleted, {describe_size(size)}, from {cache.root}")
    for store in list_store_copies():
        count, size = store.clear()
        if count:
            what = f"{_count_entries(count)} of {store.address} deleted here"
            print_message(f"{what}, {describe_size(size)}, from {store.folder}")
        if store.unsent:
            stay = f"{_count_entries(len(store.unsent))} of {store.address} not deleted"
            why = "it may lack them, and the next run with a connection sends them"
            print_message(f"{stay}: {why}; they lie in {store.folder}")
    count, size = open_cache().clear()
    if count:
        print_message(f"{count} objects of stores deleted, {describe_size(size)}")
    count, size = clear_copies()
    if count:
        print_message(f"{_count_copies(count)} deleted, {describe_size(size)}")
    _print_extracted(" stay, as finished runs read them")


def _list_values(shard: Shard) -> dict[str, Any]:
    return {
        "path": str(shard.path),
        "bytes": shard.size,
        "images": shard.images,
        "used": shard.used,
        "made_by": shard.made_by,
        "data": shard.data,
    }


def _list_rows(shards: Iterable[Shard]) -> list[list[Any]]:
    """Returns a row for each base and data, the least recently used first."""
    groups: dict[tuple[str, str], list[Shard]] = {}
    for shard in shards:
        groups.setdefault((shard.made_by.partition(" before ")[0], shard.data), []).append(shard)
    return [
        [
            base,
            data or "unknown",
            len(group),
            Figure(describe_size(sum(shard.size for shard in group))),
            describe_age(group[-1].used),
        ]
        for (base, data), group in sorted(groups.items(), key=lambda item: item[1][-1].used)
    ]


def _measure_extracted() -> dict[str, Any]:
    """Returns folder, number and bytes of the images that lay in files with others."""
    folder, images, size = _find_extracted()
    return {"folder": str(folder), "bytes": size, "images": images}


def _measure_objects() -> dict[str, Any]:
    """Returns folder, number and bytes of the objects of stores that are kept."""
    from tl_toolkit.sources.object_cache import open_cache

    cache = open_cache()
    count, size = cache.measure()
    return {"folder": str(cache.folder), "bytes": size, "objects": count}


def _measure_copies() -> dict[str, Any]:
    """Returns folder, number and bytes of the whole copies of files on stores."""
    from tl_toolkit.recipe.remote import mirrors
    from tl_toolkit.sources.copies import measure_copies

    count, size = measure_copies()
    return {"folder": str(mirrors()), "bytes": size, "files": count}


def _measure_shared() -> list[dict[str, Any]]:
    """Returns address, folder, number and bytes of what is here of each shared feature store."""
    from tl_toolkit.features.copies import list_store_copies

    return [
        {
            "address": store.address,
            "folder": str(store.folder),
            "bytes": store.size,
            "entries": len(store.sent) + len(store.unsent),
            "unsent": len(store.unsent),
        }
        for store in list_store_copies()
    ]


def _count_entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _count_copies(count: int) -> str:
    return "1 copy of a file on a store" if count == 1 else f"{count} copies of files on stores"


def _find_extracted() -> tuple[Path, int, int]:
    """Returns the folder of images that lay in files with others, how many, and their bytes."""
    from tl_toolkit.images.members import EXTRACTED, count_extracted
    from tl_toolkit.runs.files import default_cache_dir

    folder = default_cache_dir() / EXTRACTED
    return folder, *count_extracted(folder)


def _print_extracted(stay: str) -> None:
    folder, images, size = _find_extracted()
    if images:
        what = "1 image" if images == 1 else f"{images} images"
        words = f"{what} of Parquet and TFRecord files, {describe_size(size)}, in {folder}"
        print_message(f"{words}{stay}")
