"""The syntax trees of the package, for tests that read its code: each module is parsed once."""

import ast
import gc
from functools import cache
from pathlib import Path

import tl_toolkit

__all__ = ["PACKAGE", "nodes_of", "parse_package", "tree_of"]

PACKAGE = Path(tl_toolkit.__file__).parent


@cache
def tree_of(path):
    """Returns the syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path):
    """Returns all nodes of the syntax tree of a module of the package."""
    return list(ast.walk(parse_package()[path]))


@cache
def parse_package():
    """Returns the tree of each module by its path. Collecting garbage meanwhile takes as long."""
    gc.disable()
    try:
        return {path: tree_of(path) for path in sorted(PACKAGE.rglob("*.py"))}
    finally:
        gc.freeze()
        gc.enable()
