"""What the pages say was measured is what the committed JSON files say."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "update_numbers.py"


def test_numbers_in_the_pages_are_those_of_the_json_files():
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}: run python tools/update_numbers.py"


def test_a_number_changed_by_hand_is_noticed(tmp_path):
    for path in [ROOT / "README.md", TOOL, *ROOT.glob("benchmarks/results/*.json"), *ROOT.glob("benchmarks/results/*.csv"), *ROOT.glob("docs/**/*.md")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    readme = tmp_path / "README.md"
    readme.write_text(re.sub(r"(\*\*ours\*\* \| )\d", r"\g<1>0", readme.read_text()))
    done = subprocess.run([sys.executable, tmp_path / "tools" / "update_numbers.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 1 and "README.md" in done.stdout


def test_the_benchmark_was_run_with_the_embedded_checkpoint_on_the_frozen_test_split():
    result = json.loads((ROOT / "benchmarks" / "results" / "eval_rendered.json").read_text())
    manifest = json.loads((ROOT / "hmr_ros" / "assets" / "manifest.json").read_text())
    assert result["checkpoint"]["sha256"] == manifest["lifter.safetensors"]["sha256"]
    frozen = json.loads((ROOT / "training" / "data" / "rendered" / "frozen_test.json").read_text())
    assert result["data"]["truth_sha256"] == frozen["truth_sha256"] and result["data"]["is_frozen_test"]


def test_every_block_stands_on_a_page_and_has_content():
    known = set(re.findall(r"(?:^|\W)def ([a-z]\w*)\(\) -> str:", TOOL.read_text()))
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
    assert set(re.findall(r"<!-- numbers: (\w+) -->", pages)) == known and len(known) > 15
    assert not re.search(r"-->\n<!-- end -->", pages) and "@@" not in pages


def test_a_depth_camera_keeps_what_readme_promises_of_positions():
    """Median at most 3 cm + 1 % of the distance, and a pose no worse than with the regressed stature."""
    settings = json.loads((ROOT / "benchmarks" / "results" / "metric_position.json").read_text())["settings"]
    assert settings["depth"]["all"]["position_over_allowed_median"] < 1
    assert settings["depth"]["all"]["mpjpe_mm"] <= settings["depth_stature_as_regressed"]["all"]["mpjpe_mm"]
    widest = settings["image"]["angle"]["26-40"]
    assert widest["mpjpe_mm"] < 0.75 * widest["ray_axes_mpjpe_mm"]
