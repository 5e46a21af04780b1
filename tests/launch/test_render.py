"""Manifests say what the slice is; the entrypoint passes signals and exit codes on."""

import importlib.util
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from sgpo_jax import chips

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
GOLDEN = pathlib.Path(__file__).parent / "golden"
COMMON = ["jobset", "--name", "demo", "--image", "repo/sgpo:1"]
RUN = ["--", "run", "--out", "/runs/demo", "--mesh.fsdp", "16"]
CASES = {
    "one-slice": [*COMMON, "--slice", "v5e-16", "--queue", "tpu", *RUN],
    "two-slices": [
        *(*COMMON, "--slice", "v5p-128", "--num-slices", "2", "--pvc", "runs"),
        *("--restarts", "9", "--grace", "60", *RUN),
    ],
}


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render", LAUNCH / "render.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["render"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CASES)
def test_manifests_are_as_checked_in(render, name, capsys):
    assert render.main(CASES[name]) == 0
    assert capsys.readouterr().out == (GOLDEN / f"{name}.json").read_text()


@pytest.mark.parametrize("name", ["v5e-1", "v5e-8", "v5e-256", "v5p-128", "v6e-16"])
@pytest.mark.parametrize("slices", [1, 3])
def test_pods_and_chips_add_up(render, name, slices):
    job = render.Job(name="x", image="i", slice=name, num_slices=slices, args=("run",))
    (group,) = render.jobset(job)["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    product = 1
    for size in topology.split("x"):
        product *= int(size)
    per_host = container["resources"]["limits"]["google.com/tpu"]
    assert spec["parallelism"] == spec["completions"]
    assert spec["parallelism"] * per_host == product == chips.parse_slice(name).chips
    assert group["replicas"] == slices


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Bad_Name"}, "DNS label"),
        ({"slice": "v5e-3"}, "no TPU slice"),
        ({"args": ()}, "say what to run"),
        ({"num_slices": 0}, "must be positive"),
    ],
)
def test_mistakes_are_refused(render, change, message):
    good = {"name": "x", "image": "i", "slice": "v5e-4", "args": ("run",)}
    with pytest.raises(ValueError, match=message):
        render.Job(**good | change)


def started(tmp_path, program):
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{program}")
    python.chmod(0o755)
    return subprocess.Popen(
        [LAUNCH / "entrypoint.sh", "run", "--out", "a b"],
        env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_sigterm_reaches_the_run_and_its_exit_code_comes_back(tmp_path):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = started(tmp_path, program)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 42
    process.stdout.close()


def test_arguments_arrive_as_they_were(tmp_path):
    process = started(tmp_path, "import json, sys; print(json.dumps(sys.argv[3:]))")
    out, _ = process.communicate(timeout=20)
    assert json.loads(out) == ["run", "--out", "a b"]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not here")
def test_scripts_pass_shellcheck():
    subprocess.run(["shellcheck", *LAUNCH.glob("*.sh")], check=True)
