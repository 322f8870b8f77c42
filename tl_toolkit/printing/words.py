"""Words for times, rates, trials and searches, as the printer shows them."""

from __future__ import annotations

import re
import shlex
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_toolkit.plan.values import describe_value, shorten_fields

__all__ = [
    "describe_age",
    "describe_count",
    "describe_folds",
    "describe_kept",
    "describe_rate",
    "describe_refit",
    "describe_search",
    "describe_seconds",
    "describe_size",
    "describe_soup",
    "describe_trial",
    "escape_controls",
    "score_of",
    "shorten_path",
    "wrap",
]


# Characters that move a terminal's cursor, change its colours, or turn the order of what follows.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str, also: str = "") -> str:
    """Returns a text that a terminal shows and does not obey; a file's name may hold anything.

    Args:
        text: The text, whose newlines and tabs stay.
        also: Further characters to write as escapes.
    """
    for letter in also:
        text = text.replace(letter, _escape(letter))
    return _CONTROLS.sub(lambda match: _escape(match[0]), text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def wrap(text: str, width: int) -> str:
    """Wraps sentences at words, which a terminal does not; a path stays whole.

    Args:
        text: Lines of sentences.
        width: Characters of a line.
    """
    lines = (
        textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )
    return "\n".join("\n".join(wrapped) for wrapped in lines)


def describe_seconds(seconds: float) -> str:
    """Returns a time in words, as "2 min 5 s".

    Args:
        seconds: The time, at least 0.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def describe_size(size: int) -> str:
    """Returns bytes in kB, MB or GB, by how many there are.

    Args:
        size: The bytes.
    """
    if size < 100_000:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def describe_count(count: int, digits: int = 4) -> str:
    """Returns a count with some digits and a unit: 15.35 G, 118 M, 850 k or 12.

    Args:
        count: The count.
        digits: Significant digits.
    """
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            places = max(digits - len(str(count // size)), 0)
            return f"{count / size:.{places}f} {letter}"
    return f"{count} "


def describe_age(moment: float) -> str:
    """Returns how long ago something was, as "3 hours ago".

    Args:
        moment: In seconds since 1970.
    """
    seconds = max(0.0, time.time() - moment)
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name} ago"
    return "just now"


def score_of(row: Mapping[str, Any]) -> str:
    """Returns the name of an epoch's score, which `val_<score>` has on validation images too.

    Args:
        row: The epoch, as in history.csv.
    """
    return next(
        name.removeprefix("val_") for name in row if name.startswith("val_") and name != "val_loss"
    )


def describe_kept(best: Mapping[str, Any]) -> str:
    """Returns the epoch, or the mixture of weights, that a run keeps, in words.

    Args:
        best: Its row, as in metrics.json.
    """
    if best.get("mixture") is None:
        return f"best epoch: {best['epoch']} of phase {best['phase']}"
    part = best["mixture"]
    return f"best: a mixture of {part:g} of the tuned weights and {1 - part:g} of those before"


def describe_folds(metrics: Mapping[str, Any], score: str, title: str) -> str:
    """Returns what the epoch that is kept scores where folds chose other ones; "" where none did.

    Args:
        metrics: Those of a run with folds, as in metrics.json.
        score: The score by which epochs are compared.
        title: Its name in print.
    """
    best = metrics["best"]
    kept = best["phase"], best["epoch"]
    if all(
        (fold["best"]["phase"], fold["best"]["epoch"]) == kept for fold in metrics["folds"]["each"]
    ):
        return ""
    return (
        "each fold chose the epoch of its model, so that this is a little too good; the epoch that "
        f"is kept has {title} {best[f'val_{score}']:.4f} in the mean of the folds"
    )


def describe_rate(rate: float | str) -> str:
    """Returns a learning rate, or the words of a schedule.

    Args:
        rate: The rate, or the words.
    """
    return rate if isinstance(rate, str) else f"{rate:g}"


def describe_trial(trial: Mapping[str, Any]) -> str:
    """Returns the line of a trial.

    Args:
        trial: Facts of the event `trial_ended`.
    """
    values = "  ".join(
        f"{name} {describe_value(value)}"
        for name, value in zip(
            shorten_fields(list(trial["values"])), trial["values"].values(), strict=True
        )
    )
    score = trial["error"].split("\n")[0] if trial["score"] is None else f"{trial['score']:.4f}"
    if trial["state"] == "paused":
        score += f" after epoch {trial['budget']}"
    number = str(trial["number"])
    if trial["continues"]:
        number += f" (resumes {trial['continues']})"
    return f"trial {number}  {values}  {score}"


def describe_search(summary: Mapping[str, Any]) -> list[str]:
    """Returns the lines about the winner, and the next command.

    Args:
        summary: As in summary.json.
    """
    best = summary["best"]
    values = [f"{key} = {describe_value(value)}" for key, value in best["values"].items()]
    failed = f", {summary['failed']} failed" if summary["failed"] else ""
    paused = f", {summary['paused']} paused" if summary["paused"] else ""
    lines = [
        f"\nbest: trial {best['number']} of {summary['trials']}{paused}{failed}, "
        f"{summary['objective']} {best['score']:.4f}",
        *(f"  {value}" for value in values),
    ]
    if summary["refit"]:
        lines.append(f"  {describe_refit(summary['refit'])}")
    soup = summary.get("soup")
    if soup:
        lines.append(
            f"soup: {describe_soup(soup)}, {summary['objective']} {soup['score']:.4f}; "
            f"the best trial has {best['score']:.4f}"
        )
    # A file, not a run: only a path names it.
    path = Path(summary["best_recipe"])
    typed = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    lines.append(f"\nnext:\n  tltool finetune {shlex.quote(str(typed))}")
    if soup:
        lines.append(f"  tltool evaluate {shlex.quote(shorten_path(Path(soup['run'])))}")
    return lines


def describe_soup(soup: Mapping[str, Any]) -> str:
    """Returns what the weights of a soup are, in words.

    Args:
        soup: As in summary.json.
    """
    members, count = soup["members"], len(soup["candidates"])
    if len(members) == 1:
        return f"trial {members[0]} alone, as no mean with one of {count - 1} others is as good"
    listed = f"{', '.join(map(str, members[:-1]))} and {members[-1]}"
    return f"the mean of trials {listed}, of {count} that were tried"


def describe_refit(refit: Mapping[str, Any]) -> str:
    """Returns a line about the winner's scores with other seeds.

    Args:
        refit: As in summary.json.
    """
    scores = refit["scores"]
    failed = scores.count(None)
    seeds = f"with {len(scores)} other seeds: "
    if failed == len(scores):
        return f"{seeds}all failed"
    spread = f"mean {refit['mean']:.4f}, {refit['min']:.4f} to {refit['max']:.4f}"
    return seeds + spread + (f", {failed} failed" if failed else "")


def shorten_path(path: Path) -> str:
    """Returns a run's path as a user types it: `<name>/<NNN>` under runs/, else relative.

    Args:
        path: Absolute path of the run.
    """
    for root in (Path("runs").absolute(), Path.cwd()):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)
