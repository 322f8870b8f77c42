"""What each test costs in processor seconds, which do not depend on what else the machine does.

    python -m pytest -p tests.cost

prints the dearest tests and files, with the processes that they start, and the total.
"""

import os
from collections import Counter

import pytest

SHOWN = 30
_began = {}


def _spend():
    """Processor seconds so far, of this process and of its children that have ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _measure(item, "setup"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _measure(item, "call"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    return (yield from _measure(item, "teardown"))


def _measure(item, when):
    before = _spend()
    try:
        return (yield)
    finally:
        item.user_properties.append((f"cpu {when}", _spend() - before))


def pytest_terminal_summary(terminalreporter):
    tests, files = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "teardown":
                continue
            for name, seconds in report.user_properties:
                if name.startswith("cpu "):
                    tests[f"{name[4:]:8}  {report.nodeid}"] += seconds
                    files[report.nodeid.partition("::")[0]] += seconds
    terminalreporter.section("processor seconds")
    for counter, shown in ((tests, SHOWN), (files, None)):
        for name, seconds in counter.most_common(shown):
            terminalreporter.line(f"{seconds:8.2f}  {name}")
    terminalreporter.line(f"{sum(files.values()):8.2f}  in all, without imports and collection")
