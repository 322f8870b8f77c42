"""Predictions of a run that was never trained, and what its report makes of them."""

from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.reports.facts import RunFacts


def make_facts(kind, classes, rows, *, columns, metrics, targets=("label",), **more):
    """Returns the facts of a run of a task, whose test images are rows of predictions.csv."""
    names = ["path", *columns]
    predictions = {name: [str(row[place]) for row in rows] for place, name in enumerate(names)}
    examples = tuple(
        Example(row[0], f"{number:064x}", "test", tuple(map(str, row[1 : 1 + len(targets)])))
        for number, row in enumerate(rows)
    )
    section = find_task(kind)()
    manifest = Manifest(examples, tuple(classes), tuple(targets))
    return RunFacts(
        classes,
        manifest,
        {"test": metrics, "leaks": []},
        {"test": predictions},
        {},
        section,
        **more,
    )


def find_parts(sections, kind):
    """Returns all parts of a kind: text, table, chart, gallery or listing."""
    return [part for section in sections for part in section.parts if part.kind == kind]
