"""Manifests say what the slice is; the entrypoint passes signals and exit codes on."""

import contextlib
import importlib.util
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from sgpo_jax import chips

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
GOLDEN = pathlib.Path(__file__).parent / "golden"
COMMON = ["jobset", "--name", "demo", "--image", "repo/sgpo:1"]
RUN = ["--", "run", "--out", "/runs/demo", "--mesh.fsdp", "16"]
CASES = {
    "one-slice": [*COMMON, "--slice", "v5e-16", "--queue", "tpu", *RUN],
    "two-slices": [
        *(*COMMON, "--slice", "v5p-128", "--num-slices", "2", "--pvc", "runs"),
        *("--restarts", "9", "--grace", "60"),
        *("--flags", "gather,slices", *RUN),
    ],
    "gcluster": ["gcluster", *COMMON[1:], "--slice", "v6e-16", "--queue", "tpu", *RUN],
    "xpk": [
        "xpk",
        *COMMON[1:],
        "--slice",
        "v5e-16",
        "--num-slices",
        "2",
        "--flags",
        "slices",
        *RUN,
    ],
    "tpu-vm": ["tpu-vm", *COMMON[1:], "--slice", "v5e-16", "--restarts", "2", *RUN],
    "queue": ["queue", *COMMON[1:], "--slice", "v5e-16", "--queue", "tpu", *RUN],
    "sky": ["sky", *COMMON[1:], "--slice", "v5e-16", "--flags", "gather", *RUN],
    "example": ["jobset", str(LAUNCH / "example.toml")],
}
SCRIPTS = ["gcluster", "xpk", "tpu-vm"]
JOBSETS = ["one-slice", "two-slices", "example"]


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render", LAUNCH / "render.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["render"] = module
    sys.path.insert(0, str(LAUNCH))  # as `python launch/render.py` does
    spec.loader.exec_module(module)
    sys.path.remove(str(LAUNCH))
    return module


@pytest.mark.parametrize("name", CASES)
def test_renderings_are_as_checked_in(render, name, capsys):
    assert render.main(CASES[name]) == 0
    suffix = {"sky": "yaml"}.get(name, "sh" if name in SCRIPTS else "json")
    assert capsys.readouterr().out == (GOLDEN / f"{name}.{suffix}").read_text()


@pytest.mark.parametrize("name", JOBSETS)
def test_a_jobset_has_the_fields_of_its_definition_and_no_others(name):
    models = pytest.importorskip("kubeflow_trainer_api.models")
    jobset = json.loads((GOLDEN / f"{name}.json").read_text())
    known = models.JobsetV1alpha2JobSet.from_dict(jobset)
    # What the definition does not know gets lost on the way; defaults are added.
    assert within(jobset, known.to_dict())


def within(part, whole):
    """Whether all that a tree of lists and dicts says is also in another."""
    if isinstance(part, dict):
        return all(k in whole and within(v, whole[k]) for k, v in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return part == whole


def test_a_queue_admits_the_jobset_that_names_it_and_no_larger_one(render):
    (flavor, cluster, local) = json.loads((GOLDEN / "queue.json").read_text())["items"]
    jobset = json.loads((GOLDEN / "one-slice.json").read_text())
    (group,) = jobset["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    pod = spec["template"]["spec"]
    assert jobset["metadata"]["labels"] == {
        "kueue.x-k8s.io/queue-name": local["metadata"]["name"]
    }
    assert local["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    (covered,) = cluster["spec"]["resourceGroups"]
    (quota,) = covered["flavors"]
    assert quota["name"] == flavor["metadata"]["name"]
    assert flavor["spec"]["nodeLabels"] == pod["nodeSelector"]
    (resource,) = quota["resources"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert covered["coveredResources"] == [resource["name"]] == list(limits)
    wanted = spec["parallelism"] * limits["google.com/tpu"] * group["replicas"]
    assert resource["nominalQuota"] == wanted


def test_a_queue_needs_a_name(render, capsys):
    assert render.main(["queue", *COMMON[1:], "--slice", "v5e-16", *RUN]) == 2
    assert "--queue NAME" in capsys.readouterr().err


def test_skypilot_recovers_what_jobset_starts_again(render):
    task = yaml.safe_load((GOLDEN / "sky.yaml").read_text())
    codes = task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert not set(codes) & {0, 1, 2}
    assert {42, 134, 137} == set(codes)
    assert task["resources"]["accelerators"] == "tpu-v5litepod-16"
    # SIGTERM must reach Python: the last line of the script is the run itself.
    assert task["run"].strip().splitlines()[-1].startswith("exec sgpo/bin/sgpo run ")


def test_skypilot_parses_its_task():
    sky = pytest.importorskip("sky")
    task = yaml.safe_load((GOLDEN / "sky.yaml").read_text())
    parsed = sky.Task.from_yaml_config(task, env_overrides=[("BUCKET", "b")])
    (resources,) = parsed.resources
    assert resources.accelerators == {"tpu-v5litepod-16": 1}


def test_the_command_line_replaces_what_the_file_says(render, capsys, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(
        'name = "a"\nimage = "i"\nslice = "v5e-16"\nargs = ["run", "b c"]\n'
    )
    assert (
        render.main(["gcluster", str(path), "--name", "other", "--restarts", "3"]) == 0
    )
    script = capsys.readouterr().out
    assert "--name other" in script
    assert "--restarts 3" in script
    assert "run '\"'\"'b c'\"'\"'" in script  # quoted twice, for two shells
    assert render.main(["gcluster", str(path), "--", "eval"]) == 0
    assert "entrypoint.sh eval " in capsys.readouterr().out


GOOD = "name='x'\nimage='i'\nslice='v5e-4'\nargs='a'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae = 'x'", "no field nmae; there are name, image"),
        ("name = 'x'", "image, slice, args must be given"),
        ("name = ", "job.toml: "),
        (
            "name='x'\nimage='i'\nslice='v5e-4'\nargs='a'\nrestarts='9'",
            "restarts = '9'",
        ),
        ("name='x'\nimage='i'\nslice='v5e-4'\nargs=[1]", "args = "),
        ("name='x'\nimage='i'\nslice='v5e-3'\nargs='a'", "no TPU slice 'v5e-3'"),
    ],
)
def test_mistakes_in_a_file_are_named(render, capsys, tmp_path, text, message):
    path = tmp_path / "job.toml"
    path.write_text(text)
    assert render.main(["jobset", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert render.main(["jobset", str(tmp_path / "absent.toml")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBSETS)
def test_each_job_of_a_jobset_follows_the_schema_of_kubernetes(name):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    jobset = json.loads((GOLDEN / f"{name}.json").read_text())
    (group,) = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    kubernetes_validate.validate(job | group["template"], "1.31", strict=True)


def test_only_refused_codes_of_undisturbed_pods_end_the_jobset(render):
    job = render.Job(name="x", image="i", slice="v5e-16", args=("run",))
    (group,) = render.jobset.jobset(job)["spec"]["replicatedJobs"]
    rules = group["template"]["spec"]["podFailurePolicy"]["rules"]

    def ends(code, disrupted):
        for rule in rules:  # Kubernetes takes the first that matches
            if "onPodConditions" in rule and disrupted:
                return rule["action"] == "FailJob"
            if code in rule.get("onExitCodes", {}).get("values", []):
                return rule["action"] == "FailJob"
        return False

    assert [c for c in range(1, 256) if ends(c, False)] == [1, 2]
    assert not any(ends(c, True) for c in range(1, 256))


@pytest.mark.parametrize(
    ("slice", "num_slices", "args", "expected"),
    [
        ("v5e-8", 1, (), []),
        ("v5e-16", 1, (), ["--distributed.coordinator", "auto"]),
        ("v5e-16", 2, (), ["--distributed.coordinator", "auto"]),
        ("v5e-16", 1, ("--distributed.coordinator=a:1",), []),
    ],
)
def test_several_hosts_are_told_to_find_each_other(
    render, slice, num_slices, args, expected
):
    args = ("run", *args)
    job = render.Job(name="x", image="i", slice=slice, num_slices=num_slices, args=args)
    assert job.command == [*args, *expected]


def test_tpu_vm_refuses_what_it_cannot_do(render, capsys):
    for more in (["v5e-16", "--num-slices", "2"], ["tpu7x-16"]):
        assert render.main(["tpu-vm", *COMMON[1:], "--slice", *more, *RUN]) == 2
        assert "one slice of v5e, v5p, v6e" in capsys.readouterr().err


def on_fakes(tmp_path, verb, **fakes):
    """Run a verb of the TPU VM script with programs replaced; return its code."""
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ZONE": "z", "PERIOD": "0"}
    command = ["bash", GOLDEN / "tpu-vm.sh", *verb]
    return subprocess.run(command, env=env, cwd=tmp_path, timeout=20).returncode


@pytest.mark.parametrize(
    ("codes", "last"),
    [((0,), 0), ((42, 0), 0), ((42, 1), 1), ((2,), 2), ((42, 42, 42), 42)],
)
def test_workers_run_again_after_42_only_and_no_more_often_than_asked(
    tmp_path, codes, last
):
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    code = on_fakes(
        tmp_path,
        ["run"],
        gcloud='bash -c "${@: -1}"',
        mountpoint="exit 0",
        sudo='echo "$*" >> calls; c=$(head -1 codes); sed -i 1d codes; exit "$c"',
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert code == last
    assert len(calls) == len(codes)
    assert calls[0].endswith(
        "repo/sgpo:1 run --out /runs/demo --mesh.fsdp 16 --distributed.coordinator auto"
    )


def test_workers_refuse_a_folder_of_their_own(tmp_path):
    fakes = {"gcloud": 'bash -c "${@: -1}"', "mountpoint": "exit 1", "sudo": "exit 0"}
    assert on_fakes(tmp_path, ["run"], **fakes) == 2


@pytest.mark.parametrize(("state", "code"), [("ACTIVE", 0), ("FAILED", 1)])
def test_waiting_ends_when_the_resource_is_there_or_never_will_be(
    tmp_path, state, code
):
    (tmp_path / "states").write_text(f"WAITING_FOR_RESOURCES\nPROVISIONING\n{state}\n")
    gcloud = "head -1 states; sed -i 1d states"
    assert on_fakes(tmp_path, ["wait"], gcloud=gcloud) == code
    assert (tmp_path / "states").read_text() == ""


def every_slice():
    for chip in chips.CHIPS:
        for size in (2**k for k in range(13)):
            with contextlib.suppress(ValueError):
                yield str(chips.parse_slice(f"{chip.name}-{size}"))


def test_every_kind_of_slice_is_among_them():
    kinds = {name.partition("-")[0] for name in every_slice()}
    assert kinds == {"v5e", "v5p", "v6e", "tpu7x"}


@pytest.mark.parametrize("name", list(every_slice()))
@pytest.mark.parametrize("slices", [1, 3])
def test_pods_and_chips_add_up(render, name, slices):
    if slices > 1 and chips.parse_slice(name).hosts == 1:
        with pytest.raises(ValueError, match="several slices need more"):
            render.Job(name="x", image="i", slice=name, num_slices=slices, args=("a",))
        return
    job = render.Job(name="x", image="i", slice=name, num_slices=slices, args=("run",))
    (group,) = render.jobset.jobset(job)["spec"]["replicatedJobs"]
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
        ({"flags": "fast"}, "no set of flags 'fast' for v5e; known: gather"),
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
    scripts = [*LAUNCH.glob("*.sh"), *GOLDEN.glob("*.sh")]
    assert len(scripts) == 1 + len(SCRIPTS)
    subprocess.run(["shellcheck", *scripts], check=True)
