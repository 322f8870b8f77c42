"""The receipt of a phase: which tensors changed, which did not, and why if that is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_toolkit.architectures.heads import NORMALIZE_LAYER
from tl_toolkit.errors import Problem, ReceiptError
from tl_toolkit.transfer.assemble import HEAD, Part, TransferModel
from tl_toolkit.transfer.freezing import Split, batch_norms, digest_variables

__all__ = ["check_receipt", "write_receipt"]

_Digests = Mapping[tuple[str, str], str]

_FROZEN = ": frozen, but moved"
_SATURATED = "every output is exactly 0 or 1, so that it is saturated"
_DEAD = "every image gets the same outputs, so that nothing of it reaches them"
_MOST_NAMES = 3
_LOWER = "a lower learning_rate for the head, in this phase or in those before it"


def write_receipt(
    transfer: TransferModel,
    split: Split,
    before: _Digests,
    *,
    phase: str,
    steps: int,
    learning_rate: float,
    outputs: np.ndarray | None = None,
    accumulate: int = 1,
) -> dict[str, Any]:
    """Compares the digests of every tensor before the first and after the last step of a phase.

    Args:
        transfer: The model, after the phase.
        split: The phase's split.
        before: `digest_variables` as it was before the first step.
        phase: Name of the phase.
        steps: Number of steps taken.
        learning_rate: Rate of those steps; at 0 no tensor has to change.
        outputs: Outputs of the model for some images after the phase, (n, ...).
        accumulate: Steps after which the weights change; those after the last change are left.

    Returns:
        The receipt: a row for each part, whether it holds, problems and warnings. Where steps are
        accumulated, it has their number, that of changes (`updates`) and of steps left (`unused`).
    """
    after = digest_variables(transfer)
    # In the order of the graph, as a set would not be: receipts of equal runs are equal files.
    moved = dict.fromkeys(key for key in after if before[key] != after[key])
    moving = _may_move(transfer, split)
    still: list[tuple[str, str]] = []
    if steps >= accumulate and learning_rate > 0:
        fixed = f"{NORMALIZE_LAYER}/"  # its statistics are set, perhaps to what they are
        still = [
            key
            for key in after
            if key in moving and key not in moved and not key[1].startswith(fixed)
        ]
    blocks = {part.name: part.block for part in transfer.parts}
    alive = {blocks[part] for part, _ in moved}
    dead = sorted({blocks[part] for part, _ in still} - alive)
    fault = _describe_outputs(outputs, transfer.task.activation)
    states = _own_states(transfer)
    problems = [f"{key[1]}{_FROZEN}" for key in moved if key not in moving and key not in states]
    for block in dead:
        facts = filter(None, (_describe_weights(transfer, block, learning_rate), fault))
        problems.append(": ".join((f"{block}: trainable, but nothing in it moved", *facts)))
    warnings = [
        f"{name}: trainable, but did not move" for part, name in still if blocks[part] in alive
    ]
    if fault and not problems:
        warnings.append(f"{HEAD}: {fault}. Try: {_LOWER}")
    return {
        "phase": phase,
        "cut": split.cut.name,
        "steps": steps,
        "learning_rate": learning_rate,
        **_count_updates(steps, accumulate),
        "holds": not problems,
        "problems": problems,
        "warnings": warnings,
        "parts": [
            _receipt_row(part, before, after, frozen=not any(key[0] == part.name for key in moving))
            for part in transfer.parts
        ],
    }


def _count_updates(steps: int, accumulate: int) -> dict[str, int]:
    if accumulate == 1:
        return {}
    updates, unused = divmod(steps, accumulate)
    return {"accumulate": accumulate, "updates": updates, "unused": unused}


def _describe_outputs(outputs: np.ndarray | None, activation: str) -> str:
    """Describes outputs that explain gradients of 0; "" if they explain nothing."""
    if outputs is None or len(outputs) < 2:
        return ""
    # Rounding alone gives no 0: float32 has one only where logits are some 100 apart.
    is_probability = activation in ("softmax", "sigmoid")
    if is_probability and bool(np.isin(outputs, (0.0, 1.0)).all()):
        return _SATURATED
    return _DEAD if bool((outputs == outputs[:1]).all()) else ""


def _describe_weights(transfer: TransferModel, block: str, learning_rate: float) -> str:
    """Describes weights of a block that are too large for steps to change; "" if none are."""
    weights = np.concatenate(
        [
            np.abs(variable.numpy()).ravel()
            for part, _, variable in transfer.variables()
            if part.block == block
        ]
    ).astype(np.float32)
    large = weights[weights > 0]
    if not large.size or np.spacing(np.median(large)) <= learning_rate:
        return ""
    return (
        f"its weights reach {weights.max():.2g}, and float32 loses steps at a rate of "
        f"{learning_rate:g} beside them"
    )


def _receipt_row(part: Part, before: _Digests, after: _Digests, *, frozen: bool) -> dict[str, Any]:
    keys = [key for key in after if key[0] == part.name]
    return {
        "block": part.block,
        "part": part.name,
        "state": "frozen" if frozen else "trainable",
        "parameters": sum(layer.count_params() for layer in part.layers),
        "tensors": len(keys),
        "moved": sum(before[key] != after[key] for key in keys),
        "sha256_before": _join_digests(before, keys),
        "sha256_after": _join_digests(after, keys),
    }


def check_receipt(
    receipt: Mapping[str, Any], *, where: str, field: str = "", callbacks: Sequence[str] = ()
) -> None:
    """Raises an error if a receipt does not hold.

    Args:
        receipt: As `write_receipt` returns it.
        where: The place for the error message.
        field: The recipe's field that holds the phase, for the hint; by default that of its name.
        callbacks: Names of the callbacks that could change weights in the phase.

    Raises:
        ReceiptError: A frozen tensor moved, or a trainable block stood still.
    """
    if receipt["holds"]:
        return
    raise ReceiptError(
        [
            Problem(
                where=where,
                what=f"phase {receipt['phase']!r}: {problem}",
                expected="What is frozen keeps every bit, and what trains moves.",
                hint=_advise(receipt, problem, field, callbacks),
            )
            for problem in _join_frozen(receipt["problems"])
        ]
    )


def _join_frozen(problems: Sequence[str]) -> list[str]:
    """Returns the problems, those of all frozen tensors as one."""
    names = [text.removesuffix(_FROZEN) for text in problems if text.endswith(_FROZEN)]
    others = [text for text in problems if not text.endswith(_FROZEN)]
    if not names:
        return others
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return [f"{', '.join(names[:_MOST_NAMES])}{more}{_FROZEN}", *others]


def _advise(receipt: Mapping[str, Any], problem: str, field: str, callbacks: Sequence[str]) -> str:
    phase = field or f"phases.{receipt['phase']}"
    if problem.endswith(_FROZEN):
        if callbacks:
            return f"without the callbacks {', '.join(callbacks)}, one of which may write weights"
        return (
            "a base without this layer: one that changes its own state cannot be frozen. If it is "
            "a layer of Keras, report it"
        )
    if _SATURATED in problem or "float32 loses" in problem:
        return _LOWER
    random_base = f"{phase}.batch_norm=train if the base has random weights"
    if receipt["cut"] == HEAD:  # statistics of frozen blocks stay as they are
        blocks = len({part["block"] for part in receipt["parts"]} - {HEAD})
        random_base = (
            f"model.weights=imagenet, or {phase}.unfreeze={blocks} {phase}.batch_norm=train, if "
            "the base has random weights"
        )
    elif problem.startswith(f"{HEAD}:") and _DEAD in problem:
        return f"{_LOWER}, or another activation in model.head.hidden"
    if problem.startswith(f"{HEAD}:") and _DEAD in problem:
        return f"{random_base}, else {_LOWER}, or another activation in model.head.hidden"
    return random_base if _DEAD in problem else f"{random_base}, else a higher learning_rate"


def _may_move(transfer: TransferModel, split: Split) -> set[tuple[str, str]]:
    """Returns trained weights, and the moving statistics of a BatchNormalization that trains."""
    trained = {id(variable) for variable in split.trainable}
    allowed = set()
    for part in transfer.parts:
        for layer in part.layers:
            moving = {
                id(variable)
                for member in batch_norms(layer)
                if member.trainable or layer.name == NORMALIZE_LAYER
                for variable in member.weights
            }
            for index, variable in enumerate(layer.weights):
                if id(variable) in trained | moving:
                    allowed.add((part.name, f"{layer.name}/{index}"))
    return allowed


def _own_states(transfer: TransferModel) -> set[tuple[str, str]]:
    """Returns the state of layers that train, as the vector of a SpectralNormalization."""
    states = set()
    for part in transfer.parts:
        for layer in (layer for layer in part.layers if layer.trainable):
            fixed = {id(weight) for member in batch_norms(layer) for weight in member.weights}
            fixed |= {id(weight) for weight in layer.trainable_weights}
            states |= {
                (part.name, f"{layer.name}/{index}")
                for index, variable in enumerate(layer.weights)
                if id(variable) not in fixed
            }
    return states


def _join_digests(digests: _Digests, keys: Sequence[tuple[str, str]]) -> str:
    lines = "\n".join(f"{key[1]} {digests[key]}" for key in keys)
    return hashlib.sha256(lines.encode()).hexdigest()
