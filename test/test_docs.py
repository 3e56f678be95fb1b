"""README.md and docs/: short enough to be read, and every link, command, option and launch argument on them exists."""

import ast
import contextlib
import dataclasses
import io
import re
from functools import cache
from pathlib import Path

import pytest

from hmr_ros import cli
from hmr_ros.ros.parameters import LiveParameters

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
LINES = {"README.md": 150, "docs/model_card.md": 80, "docs/*.md": 120, "docs/experiments/*.md": 120}
PRESETS = ("ablation", "extended", "paper", "tiny")  # of `hmr-ros train`, as sub-commands
FOREIGN = {"--system-site-packages"}  # options of other programs


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def code_of(path):
    """The page's lines of code: fenced blocks, with continued lines joined and $VARIABLES filled in, and code in sentences."""
    text = path.read_text()
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [re.sub(r"(^|\s)#.*", "", line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    values = dict(re.findall(r'^(\w+)="(.*)"\s*$', "\n".join(lines), re.M))
    return [re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), line) for line in lines + spans]


def options_of(words):
    return [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]


@cache
def help_of(command):
    """What ``hmr-ros COMMAND --help`` prints; command: its words."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        cli.main([*command, "--help"])
    return told.getvalue()


def has_option(command, option):
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w.-])", help_of(command)) is not None


@pytest.mark.parametrize("pattern", LINES)
def test_pages_stay_short(pattern):
    paths = list(ROOT.glob(pattern))
    assert paths
    for path in paths:
        assert len(path.read_text().splitlines()) <= LINES[pattern], name_of(path)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(path):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_and_option_exists(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for line in code_of(path):
        for call in re.findall(r"hmr-ros ([a-z].*)", re.sub(r" --\s+train", "\nhmr-ros train", line)):  # train on-ray ends with another command
            command, rest = cli.split_command(re.split(r"[;|&`]", call)[0].split())
            assert command, f"hmr-ros {call}"
            words = (*command.split(), *(rest[:1] if command == "train" and rest[:1] and rest[0] in PRESETS else ()))
            for option in options_of(rest):
                assert has_option(words, option), f"hmr-ros {' '.join(words)} has no {option}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_option_that_stands_alone_is_one_of_some_command(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    trained = [("train", preset) for preset in PRESETS]
    for line in code_of(path):
        for option in options_of(line.split()[:1]):
            if option not in FOREIGN:
                commands = [*trained, *(tuple(name.split()) for name in cli.COMMANDS)]
                assert any(has_option(words, option) for words in commands), option


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_script_and_its_options_exist(path):
    for line in code_of(path):
        for script, rest in re.findall(r"python ((?:benchmarks|tools)/\w+\.py)(.*)", line):
            source = (ROOT / script).read_text()
            for option in options_of(rest.split()):
                field = rf"^ +{option[2:].replace('-', '_')}: "
                assert re.search(field, source, re.M) or f'"{option}"' in source, f"{script} has no {option}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_launch_argument_and_parameter_exists(path):
    known = {field.name for field in dataclasses.fields(LiveParameters)} | {"source"}
    for launch in ROOT.glob("launch/*.py"):
        tables = [node.value for node in ast.parse(launch.read_text()).body if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"]
        known |= {key.value for table in tables for key in table.keys}
    for line in code_of(path):
        for name in re.findall(r"(?<![\w/])(\w+):=", line):
            assert name in known, f"{name}:="
