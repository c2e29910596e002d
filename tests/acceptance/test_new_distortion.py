"""The distortion of docs/extending.md: its file, where the page puts it, and its command make it part of a run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "docs" / "extending.md").read_text().partition("## A new distortion\n")[2].partition("\n## ")[0]
)
TARGET = re.search(r"as `(early_exit/distortions/\w+\.py)`", SECTION)[1]
FILE = re.search(r"^```python\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)[1]
COMMAND = shlex.split(re.search(r"^```sh\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)[1])


@pytest.fixture
def orchestrator(home, copied_packages):
    """``orchestrator("submit", …)`` as in a checkout that has the page's file too."""
    assert not (copied_packages / TARGET).exists()
    (copied_packages / TARGET).write_text(FILE)

    def run(*arguments):
        command = [sys.executable, "-c", "from orchestrator.main import main; main()", *arguments]
        environment = home.environment | {"PYTHONPATH": str(copied_packages)}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=copied_packages, env=environment, check=False
        )

    return run


def test_one_file_makes_a_distortion(orchestrator, home, small):
    program, submit, plan, *levels = COMMAND
    assert (program, submit, plan, levels) == (
        *("orchestrator", "submit", "full-paper"),
        ["--set", "levels.fog=[30, 60, 90]"],
    )
    done = orchestrator(submit, "distorted-dataset", *levels, "--in-process", *small())
    assert done.returncode == 0, done.stderr
    images = {}
    statement = "SELECT j.stage, j.label, a.uri FROM jobs j JOIN artifacts a ON a.id = j.artifact_id"
    for stage, label, uri in home.rows(statement):
        arrays = load_file(home.path / "artifacts" / uri)
        condition, _, _ = label.rpartition(", ")
        for image, pixels in zip(arrays["images"].tolist(), arrays["pixels"], strict=True):
            images[condition if stage == "distort" else "prepared", image] = pixels
    clear = {image: pixels for (condition, image), pixels in images.items() if condition == "prepared"}
    assert len(clear) == 10
    assert len(images) == 10 * (1 + 2 + 2 + 3)  # prepared, two levels of blur and of noise, three of fog
    for level in (30, 60, 90):
        for image, pixels in clear.items():
            veiled = pixels * (1 - level / 100) + 255 * level / 100
            np.testing.assert_allclose(images[f"fog {level}", image], veiled, rtol=0, atol=0.501)


def test_the_pages_command_plans_an_expert_and_every_evaluation_of_it(orchestrator, small):
    plain, foggy = (
        orchestrator(*COMMAND[1:3], *levels, "--dry-run", *small()) for levels in ((), COMMAND[3:])
    )
    assert (plain.returncode, foggy.returncode) == (0, 0), plain.stderr + foggy.stderr
    before, after = (planned(output.stdout) for output in (plain, foggy))
    assert (before["train-expert"], after["train-expert"]) == (4, 5)
    # three more conditions beside five, and policy fog beside the paper's five and three baselines
    assert (before["sweep"], after["sweep"]) == (8 * 5, 9 * 8)
    assert (before["latency"], after["latency"]) == (8 * 5, 9 * 8)


def planned(output):
    """Jobs by stage, as a dry run prints them."""
    return {stage: int(jobs) for stage, jobs in re.findall(r"│ ([\w-]+) +│ +(\d+) +│", output)}


def test_a_run_whose_distortion_is_gone_says_so(orchestrator, home, small):
    submitted = orchestrator("submit", "distortion-classifier", *COMMAND[3:], "--in-process", *small())
    assert submitted.returncode == 0, submitted.stderr
    done = home.command("results", "1")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: unknown distortion kind 'fog': early_exit/distortions/ has gaussian_blur, "
    )
    assert done.stderr.count("\n") == 1


def test_without_the_file_there_is_no_such_kind(home, small):
    done = home.command(*COMMAND[1:], "--dry-run", *small())
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown field 'levels.fog'. Known: gaussian_blur, gaussian_noise, ")
