"""docs/paper.md names files, functions and options: they are there."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from hmr_ros.networks.paper.net import RegressorConfig
from hmr_ros.training.losses.consistency import LossConfig
from hmr_ros.training.paper.train import SelfSupervisedConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper.md").read_text()
CODE = re.compile(r"`([^`\n]+)`")
OPTIONS = {"loss": LossConfig, "regressor": RegressorConfig}


def defined(path):
    """Names of functions, classes and methods in a file."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def named():
    """(file, name) for every name that follows a file in the same row of a table of the page."""
    pairs = []
    for row in re.findall(r"^\|.*", PAGE, re.M):
        file = None
        for word in CODE.findall(row):
            if word.endswith(".py"):
                file = word
                pairs.append((file, None))
            elif file and word.isidentifier():
                pairs.append((file, word))
    return pairs


def test_every_file_and_function_on_the_page_exists():
    pairs = named()
    assert len({name for _, name in pairs}) > 15  # the page is read as it is written
    for file, name in pairs:
        assert (ROOT / file).is_file(), file
        assert name is None or name in defined(ROOT / file), f"{file} has no {name}"


@pytest.mark.parametrize("group", OPTIONS)
def test_every_option_on_the_page_exists_with_the_default_that_it_states(group):
    known = {field.name: field.default for field in fields(OPTIONS[group])}
    said = re.findall(rf"`{group}\.(\w+)`(?: ([\w.]+))?", PAGE)
    assert said
    for name, value in said:
        assert name in known, f"{group}.{name}"
        if re.fullmatch(r"[\d.]+", value):
            assert float(value) == known[name], f"{group}.{name} is {known[name]}, the page says {value}"
    assert "mirror" in {field.name for field in fields(SelfSupervisedConfig)}
