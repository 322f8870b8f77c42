"""Trains on one device and on replicas, in a process of its own, and prints how they differ.

TensorFlow splits its CPU into logical devices only before its first operation.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

import tl_toolkit as tl
from tests.api.test_resume import RECIPE, Killed, stop_at
from tests.models import build_transfer, layers_of
from tl_toolkit.catalog.lookup import find_architecture, resolve_unfreeze
from tl_toolkit.plan.devices import parse_devices
from tl_toolkit.plan.training import PhaseSettings, Teaching
from tl_toolkit.recipe.anchors import L2SP
from tl_toolkit.recipe.optimizers import SGD, Adam
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.training.changes import MixedTargets, TaughtTargets
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.devices import OneDevice, find_devices

COUNT, BATCH = 26, 8  # the last batch has 2 examples, fewer than devices
TARGETS = np.arange(COUNT, dtype=np.int32) % 3
RANDOM = np.random.default_rng(0)
SHARES = RANDOM.uniform(size=COUNT).astype(np.float32)
PROBABILITIES = RANDOM.dirichlet((1, 1, 1), COUNT).astype(np.float32)
LENET = ("c1", "c3", "c5", "f6")
VGG = resolve_unfreeze(find_architecture("vgg_tiny"), 2)


def phase(optimizer=None, rate=1e-2, units=LENET, **fields):
    return PhaseSettings("tune", 1, optimizer or SGD(momentum=0.9), rate, units, **fields)


def mixed():
    return MixedTargets(TARGETS, TARGETS[::-1].copy(), SHARES)


def balanced():
    task = Classification(("a", "b", "c"), layers_of(), balance="class_weights")
    task.prepare(np.array([0] * 9 + [1] * 3 + [2], np.int32))
    return task


PARTS = Teaching(None, (), (32, 32), "stretch", 2.0, 1.0)
CASES = {
    "whole network": {"phase": phase()},
    "frozen base": {"phase": phase(units=())},
    "batch norm that is frozen": {"phase": phase(units=VGG), "base": "vgg_tiny"},
    "batch norm that trains": {
        "phase": phase(units=VGG, batch_norm="train"), "base": "vgg_tiny", "momentum": True,
    },
    "accumulation": {"phase": phase(SGD(accumulate=2))},
    "averages": {"phase": phase(SGD(ema=0.75))},
    "decay by layer": {"phase": phase(layer_decay=0.5)},
    "adam": {"phase": phase(Adam(), 1e-4)},
    "class weights": {"phase": phase(), "task": balanced},
    "mixed examples": {"phase": phase(), "targets": mixed},
    "teacher": {
        "phase": phase(teaching=PARTS), "targets": lambda: TaughtTargets(TARGETS, PROBABILITIES),
    },
    "held near its start": {"phase": phase(l2_sp=L2SP())},
    "float16": {
        "phase": phase(SGD(momentum=0.9, clip_norm=1.0), units=VGG, batch_norm="train"),
        "base": "vgg_tiny", "precision": "float16",
    },
}  # fmt: skip


def train(devices, case, *, size=COUNT, dropout=0.0, equal=False):
    """Losses of steps, metric state, and all weights after them."""
    task = case["task"]() if "task" in case else None
    head = {"dropout": dropout} if dropout else None
    transfer = build_transfer(case.get("base", "lenet5"), seed=1, head=head, task=task)
    _, steps = CompiledPhases(transfer, case.get("precision", "float32"), devices=devices).get(
        case["phase"], BATCH
    )
    config = transfer.model.get_config()
    for layer in steps.dropouts:
        layer.set_rate(dropout)
    if steps.distillation:
        steps.distillation.set(temperature=2.0, weight=0.5)
    if steps.starting_point:
        start = {name: variable.numpy() for _, name, variable in transfer.variables()}
        steps.starting_point.set(start, base=0.5, head=0.5)
    shape = (size, *steps.model.input.shape[1:])
    features = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    if equal:
        features[:] = features[:1]
    targets = case.get("targets", lambda: TARGETS)()
    losses, state = steps.train(features, targets[:size])
    again, state = steps.train(features, targets[:size], state)
    steps.use_averages()
    assert transfer.model.get_config() == config, "the model is not saved as it was"
    return np.concatenate([losses, again]), state, transfer.model.get_weights()


def overflow(devices):
    """How far a step goes, and one whose scaled gradients overflow in the second half alone."""
    transfer = build_transfer("vgg_tiny", seed=1)
    settings = phase(SGD(), units=VGG)
    _, steps = CompiledPhases(transfer, "float16", devices=devices).get(settings, BATCH)
    shape = (BATCH, *steps.model.input.shape[1:])
    features = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    steps.optimizer.dynamic_scale.assign(2.0**14)
    moved = []
    for factor in (1, 100):
        features[BATCH // 2 :] *= factor
        before = transfer.model.get_weights()
        losses, _ = steps.train(features, TARGETS[:BATCH])
        pairs = zip(before, transfer.model.get_weights(), strict=True)
        moved.append(max(float(np.abs(a - b).max()) for a, b in pairs))
    return {
        "moved": moved,
        "scale": float(np.log2(steps.optimizer.dynamic_scale)),
        "is_finite": bool(np.isfinite(losses).all()),
    }


def compare(replicas, names):
    """A row a case: the largest differences between one device and replicas."""
    rows = {}
    for name in names:
        losses, state, weights = train(OneDevice(), CASES[name])
        other_losses, other_state, others = train(replicas, CASES[name])
        rows[name] = {
            "losses": len(losses),
            "spread": float(np.ptp(losses)),
            "loss": float(np.abs(losses - other_losses).max()),
            "score": (np.asarray(state) == other_state).all().item(),
            "weights": max(
                float(np.abs(a - b).max()) for a, b in zip(weights, others, strict=True)
            ),
        }
        if CASES[name].get("precision") == "float16":
            rows[name]["overflow"] = overflow(replicas)
    return rows


def sample_masks(replicas):
    """The first loss of equal examples, one a replica, and of one of them alone on one device."""
    case = {"phase": phase(units=())}
    same = np.zeros(COUNT, np.int32)
    case["targets"] = lambda: same
    losses = [
        train(devices, case, size=size, dropout=0.5, equal=True)[0]
        for devices, size in ((replicas, replicas.count), (OneDevice(), 1))
    ]
    return [each.tolist() for each in losses]


def run_whole(folder):
    """Runs on one device, on all, and begun on all and ended on one."""
    recipe = RECIPE | {"model": RECIPE["model"] | {"head": {"dropout": 0}}}
    runs = {}
    for name, devices in (("one", None), ("all", "all"), ("resumed", "all")):
        handler = stop_at(11, Killed) if name == "resumed" else False
        try:
            run = tl.finetune(recipe, out=folder / name, devices=devices, progress=handler)
        except Killed:
            run = tl.finetune(recipe, out=folder / name, resume=True)
        numerics = json.loads((folder / name / "lock.json").read_text())["numerics"]
        runs[name] = {"history": run.history, "devices": numerics.get("device_count", 1)}
    return runs


def main(count, *names):
    """Prints what was measured, of the named cases or of all."""
    kind = os.environ.get("TL_TOOLKIT_REPLICAS", "CPU")
    limit = 2048 if kind == "GPU" else None  # MB of each
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit=limit)] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices(kind)[0], parts)
    replicas = find_devices(parse_devices("all"))
    found = {"cases": compare(replicas, names or CASES), "masks": sample_masks(replicas)}
    if not names:
        with tempfile.TemporaryDirectory() as folder:
            found["runs"] = run_whole(Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
