"""The tasks that models learn: each has a folder for everything that is particular to it.

The sections of recipes are classes here, to build a recipe in Python:

    tl.Recipe(..., task=tl.tasks.RegressionSection(columns=("age",), loss="huber"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_toolkit.recipe.tasks import TASKS, find_task

if TYPE_CHECKING:  # for editors and checkers: a task is opened when it is asked for
    from tl_toolkit.tasks.classification.spec import ClassificationSection as ClassificationSection
    from tl_toolkit.tasks.edges.spec import EdgesSection as EdgesSection
    from tl_toolkit.tasks.multilabel.spec import MultilabelSection as MultilabelSection
    from tl_toolkit.tasks.normals.spec import NormalsSection as NormalsSection
    from tl_toolkit.tasks.regression.spec import RegressionSection as RegressionSection
    from tl_toolkit.tasks.segmentation.spec import SegmentationSection as SegmentationSection


if not TYPE_CHECKING:  # a checker would take any name for granted

    def __getattr__(name: str) -> Any:
        if name.endswith("Section"):
            for kind in TASKS:
                if find_task(kind).__name__ == name:
                    return find_task(kind)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(find_task(kind).__name__ for kind in TASKS)])
