"""What a training depends on: what lock.json holds, and the digest that its states carry."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import describe_training
from tl_toolkit.plan.used_runs import open_run
from tl_toolkit.runtime import describe_numerics
from tl_toolkit.sources.objects import name_object
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.weights import hash_file

__all__ = ["describe_lock", "identify_training"]


def describe_lock(
    plan: Plan, transfer: TransferModel, manifest: Manifest, *, devices: int = 1
) -> dict[str, Any]:
    """Returns what lock.json holds: seeds, versions, and digests of data and weights.

    Args:
        plan: The plan.
        transfer: Its model.
        manifest: Its images.
        devices: How many share a batch.
    """
    recipe = plan.recipe
    loaded = transfer.weights
    weights = loaded.path if loaded else recipe.model.own_file
    return {
        "seed": recipe.seed,
        "split_seed": recipe.data.split_seed,
        "data_sha256": manifest.digest,
        "excluded": plan.listing.excluded.images,
        "weights": name_object(str(weights)) if weights else recipe.model.weights,
        "weights_matched_by": loaded.by if loaded else None,
        "weights_left_out": list(loaded.left_out) if loaded else [],
        **({"weights_widened": loaded.widened} if loaded and loaded.widened else {}),
        **_digest_origins(plan, transfer),
        "numerics": {
            **describe_numerics(),
            "precision": recipe.precision,
            **({"device_count": devices} if devices > 1 else {}),
        },
    }


def _describe_teacher(plan: Plan) -> dict[str, str] | None:
    """Returns the run of a teacher and the digest of its model; None without one."""
    teacher = plan.recipe.teacher
    if teacher is None:
        return None
    model = open_run("teacher.run", teacher.run).model
    return {"run": str(teacher.run), "sha256": hash_file(model)}


def identify_training(plan: Plan, transfer: TransferModel) -> str:
    """Returns a digest of all that decides a training beside its images.

    Args:
        plan: The plan.
        transfer: Its model.
    """
    whole = {**describe_training(plan.recipe), **_digest_origins(plan, transfer)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _digest_origins(plan: Plan, transfer: TransferModel) -> dict[str, Any]:
    """Returns the digests of the weight file and of the runs that a training begins with."""
    weights = transfer.weights.path if transfer.weights else plan.recipe.model.own_file
    return {
        "weights_sha256": hash_file(weights) if weights else None,
        "start": plan.start.as_json() if plan.start else None,
        "teacher": _describe_teacher(plan),
    }
