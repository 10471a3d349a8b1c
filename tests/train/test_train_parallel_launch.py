"""The launch examples say what torchrun, Slurm, Kubernetes and our own command line understand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from mobilemoe.cli import app
from mobilemoe.recipe import load_recipe

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "slurm" / "train.sbatch"
KUBERNETES = ROOT / "examples" / "kubernetes" / "train.yaml"
PROGRAMS = {
    "scontrol": 'printf "node-a\\nnode-b\\n"',
    "srun": '[ "$1" = --kill-on-bad-exit=1 ] && shift && exec "$@"',
    "torchrun": f"exec {sys.executable} -c "
    "'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"",
}


def launched(arguments: list[str]) -> tuple[Any, dict[str, Any]]:
    """Parse a torchrun command line as torchrun does, and the rest as `mobilemoe` does."""
    options = get_args_parser().parse_args(arguments)
    assert options.module
    assert options.training_script == "mobilemoe"
    verb, *rest = options.training_script_args
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    return options, command.make_context(verb, rest).params


def pods() -> tuple[dict[str, Any], dict[str, Any]]:
    """The service and the job of the Kubernetes example."""
    service, job = yaml.safe_load_all(KUBERNETES.read_text())
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    return service, job


def run_slurm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the batch script with the cluster's programs replaced by small scripts."""
    for name, line in PROGRAMS.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_ID": "17",
    }
    return subprocess.run(
        ["bash", str(SLURM), *arguments], env=environment, capture_output=True, text=True
    )


def test_the_slurm_script_starts_one_job_over_all_nodes(tmp_path: Path) -> None:
    done = run_slurm(tmp_path, "recipes/s.toml", "runs/my s", "--stage", "pretrain")
    assert done.returncode == 0, done.stderr
    options, train = launched(json.loads(done.stdout))
    assert (options.nnodes, options.nproc_per_node, options.rdzv_id) == ("2", "8", "17")
    assert options.rdzv_endpoint == "node-a:29400"
    assert (train["recipe"], train["out"]) == ("recipes/s.toml", Path("runs/my s"))
    assert (train["stage"], train["resume"]) == ("pretrain", True)


@pytest.mark.parametrize("arguments", [(), ("recipes/s.toml",)])
def test_the_slurm_script_says_what_it_needs(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run_slurm(tmp_path, *arguments)
    assert done.returncode != 0
    assert "usage: sbatch train.sbatch RECIPE OUT" in done.stderr


def test_the_slurm_options_come_before_the_first_command() -> None:
    lines = SLURM.read_text().splitlines()
    last_option = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last_option + 1])
    assert "#SBATCH --ntasks-per-node=1" in lines  # torchrun starts the ranks of a node


def test_the_kubernetes_pods_meet_at_the_service() -> None:
    service, job = pods()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, *arguments = container["command"]
    assert program == "torchrun"
    options, train = launched(arguments)
    assert train["resume"]
    assert int(options.nnodes) == spec["completions"] == spec["parallelism"]
    assert int(options.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    host, port = options.rdzv_endpoint.split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert int(port) == service["spec"]["ports"][0]["port"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("path", [SLURM, KUBERNETES], ids=["slurm", "kubernetes"])
def test_the_ranks_can_share_the_experts_and_the_rows(path: Path) -> None:
    """Recipe s on the example's nodes: the ranks divide experts' groups and every batch."""
    text = path.read_text()
    nodes = int(re.search(r"--nodes=(\d+)|--nnodes=(\d+)", text).group(0).split("=")[1])  # type: ignore[union-attr]
    recipe = load_recipe(str(ROOT / "recipes" / "s.toml"))
    ranks = 8 * nodes
    assert ranks % recipe.parallel.expert_parallel == 0
    assert recipe.model.num_local_experts % recipe.parallel.expert_parallel == 0
    assert all(stage.batch_size % ranks == 0 for stage in recipe.stages)
