"""A small policy compiles for four chips that are not there, and nothing is wasted."""

import dataclasses

import jax
import pytest

from sgpo_jax import chips, ledger, methods, sharding
from sgpo_jax.ahead_of_time import compile_report, programs, report, topology
from sgpo_jax.commands import aot
from sgpo_jax.commands.aot import Aot

pytest.importorskip("libtpu")

OPTIONS = Aot(
    topology="v5e-4",
    model="tiny",
    mesh=sharding.MeshShape(fsdp=2, tensor=2),
    row_length=(256,),
    prompt=(65,),
    response=64,
)


@pytest.fixture(scope="module")
def workload():
    return OPTIONS.workload()[0]


def compiled(jobs, start, workload):
    (job,) = [job for job in jobs if job.name.startswith(start)]
    return compile_report.compile_job(job)


@pytest.mark.slow
def test_the_step(workload):
    found = compiled(workload.step_jobs(), "gradients", workload)
    config = workload.decoder
    assert found.compiled
    assert found.counts is not None
    layers = config.num_layers
    # The kernel, not a substitute: forward, again for the backward pass, backward.
    assert found.counts.kernels["shared_prefix_forward"] == 2 * layers
    assert all(count % layers == 0 for count in found.counts.kernels.values())
    assert len(found.counts.kernels) > 1
    (shape,) = workload.buckets.shapes
    tokens = shape.rows * shape.row_length
    forward = ledger.forward_flops(config, tokens=tokens, pairs=0, logits=tokens)
    # Backward is twice forward, and rematerialisation at most once more; if anything
    # were computed twice, four devices would do more.
    assert 3 <= found.counts.flops * workload.mesh.size / forward <= 4
    state = workload.state()
    assert found.arguments >= 2 * programs.device_bytes(state.params)
    kinds = {c.kind for c in found.counts.collectives}
    assert {"all-gather", "reduce-scatter"} <= kinds


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("grpo_token", set()),
        ("grpo", {"log-probabilities"}),
        ("gspo", {"log-probabilities"}),
        ("spo", {"log-probabilities"}),
        ("rebel", {"residuals"}),
        ("vargrad", {"log-probabilities", "residuals"}),
    ],
)
def test_the_programs_of_a_step_follow_from_the_parts(workload, name, further):
    method = methods.named(name)
    jobs = dataclasses.replace(workload, method=method).step_jobs()
    found = {job.name.split()[0]: job for job in jobs}
    assert found.keys() == {"gradients", "update"} | further
    if "residuals" in further:
        found["residuals"].lower()


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["v5e-4", "v6e-4"])
def test_reference_log_probabilities_are_one_forward_pass(chip):
    options = dataclasses.replace(OPTIONS, topology=chip, method="grpo")
    workload = options.workload()[0]
    found = compiled(workload.step_jobs(), "log-probabilities", workload)
    assert found.compiled
    assert found.counts is not None
    kernels = {"shared_prefix_forward": workload.decoder.num_layers}
    assert found.counts.kernels == kernels
    plain = OPTIONS.workload()[0]
    held = [max(job.resident_bytes for job in w.step_jobs()) for w in (plain, workload)]
    params = programs.device_bytes(workload.state().params)
    assert held[1] - held[0] == params, "the reference is a copy of its own"


@pytest.mark.slow
def test_a_decode_step_moves_activations_not_parameters(workload):
    found = compiled(workload.sampler_jobs(), "decode", workload)
    assert found.counts is not None
    moved = sum(c.bytes for c in found.counts.collectives)
    assert 0 < moved < programs.device_bytes(workload.sampler_params()) / 10


def test_only_scales_and_counters_are_kept_whole(workload):
    state = workload.state()
    tree = {"params": state.params, "optimizer": state.opt_state}
    whole = compile_report.copies(tree, workload.mesh)
    assert {path.copies for path in whole} == {4}
    assert all("norm" in one.path or "count" in one.path for one in whole)


def test_an_array_that_is_kept_whole_is_found(workload):
    halves = sharding.named(workload.mesh, "fsdp")
    tree = {"w": jax.ShapeDtypeStruct((8, 8), "float32", sharding=halves)}
    (found,) = compile_report.copies(tree, workload.mesh)
    assert found.copies == 2


def test_slices_cross_the_data_axis_only():
    piece = chips.parse_slice("v5e-16")
    found = topology.devices(piece, num_slices=2)
    shape = sharding.MeshShape(data=2, fsdp=4, tensor=4)
    mesh = topology.mesh(shape, found, num_slices=2)
    for row, devices in enumerate(mesh.devices):
        assert {device.slice_index for device in devices.flat} == {row}
    with pytest.raises(ValueError, match="multiple of the 2 slices"):
        topology.mesh(sharding.MeshShape(fsdp=32), found, num_slices=2)


@pytest.mark.slow
def test_only_gradients_cross_between_slices():
    options = dataclasses.replace(
        OPTIONS, num_slices=2, mesh=sharding.MeshShape(data=2, fsdp=4)
    )
    workload, _ = options.workload()
    step, update = workload.step_jobs()
    state = workload.state()
    sums = compile_report.compile_job(step).counts
    assert sums is not None
    between = [c for c in sums.collectives if c.over == "dcn"]
    assert {c.group for c in between} == {2}
    # Every device has its part of the gradients summed: the table's in float32, of
    # looking up and of logits, the layers' in bfloat16. Those of keys and values, which
    # are small, the compiler leaves whole.
    table = programs.device_bytes(state.params["embedding"])
    layers = programs.device_bytes(state.params) - table
    gradients = layers / 2 + 2 * table
    summed = sum(c.bytes for c in between if c.kind == "all-reduce")
    assert gradients <= summed < 1.2 * gradients
    rest = compile_report.compile_job(update).counts
    assert rest is not None
    assert rest.sent("dcn") == 0


def test_no_program_of_a_name_is_a_mistake(capsys):
    args = ["--topology", "v5e-4", "--model", "tiny", "--response", "64"]
    assert aot.main([*args, "--only", "nothing"]) == 2
    said = capsys.readouterr().err
    assert "--only nothing: no program is called so: gradients" in said
    assert "update, prefill" in said and said.count("\n") == 1


def test_what_does_not_fit_is_named_with_what_to_change(capsys):
    args = ["--topology", "v5e-4", "--model", "qwen3-8b", "--mesh.fsdp", "4"]
    assert aot.main([*args, "--only", "update"]) == 1
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("* ")]
    assert line.startswith("* update: needs 30.52G of 15.75G HBM")
    # 8.2e9 parameters of 16 bytes, with moments and gradients, in 15 GiB each.
    assert "30.516 GiB per device, split over 4; 16 would do" in line
    assert "take a larger slice" in line
    assert aot.main(["--topology", "v5e-3"]) == 2
    assert "no TPU slice" in capsys.readouterr().err


def test_advice_follows_what_is_large(workload):
    v5e = chips.parse_slice("v5e-4").chip
    state = 2 * programs.device_bytes(workload.state())

    def advice(name, *, hbm, temporaries, mesh=workload):
        chip = dataclasses.replace(v5e, hbm_gib=hbm / chips.GIB)
        found = compile_report.CompileReport(
            name=name, arguments=1, temporaries=temporaries
        )
        return report.advice(found, chip, mesh)

    assert advice("gradients", hbm=10 * state, temporaries=state) == ""
    # Smaller batches help where the batch is what is large, and not elsewhere.
    long, _ = dataclasses.replace(OPTIONS, row_length=(256, 2**18)).workload()
    found = advice("gradients 2 x 262144", hbm=state, temporaries=state, mesh=long)
    assert "lower --row-length (now 262144; it need only hold" in found
    sizes = long.decoder.num_layers * long.decoder.embed_dim
    inputs = compile_report.gib(sizes * 2**18 * 2)  # bfloat16
    assert float(inputs) > 0.01
    assert f"take --remat offload: the inputs of layers, {inputs} GiB" in found
    assert "--row" not in advice("gradients", hbm=state // 4, temporaries=state)
    more, _ = dataclasses.replace(OPTIONS, rows=(1, 4), remat="offload").workload()
    found = advice("gradients 8 x 256", hbm=state, temporaries=state, mesh=more)
    assert found.startswith("lower --rows or --row-length: more micro-batches")
    assert "offload" not in found
    assert "larger slice" in advice("update", hbm=state, temporaries=state)
    assert "--mesh.tensor (the sampler splits parameters over 2 of the 4" in advice(
        "decode 65", hbm=state, temporaries=state
    )
    data, _ = dataclasses.replace(
        OPTIONS, mesh=sharding.MeshShape(data=2, tensor=2)
    ).workload()
    assert "raise --mesh.fsdp (now 1)" in advice(
        "update", hbm=state, temporaries=state, mesh=data
    )


@pytest.mark.slow
def test_each_host_of_several_samples_on_its_own_devices():
    options = dataclasses.replace(
        OPTIONS, topology="v5e-16", mesh=sharding.MeshShape(fsdp=2, tensor=8)
    )
    workload, _ = options.workload()
    assert workload.mesh.size == 16
    assert dict(workload.sampling_mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 4}
    found = compiled(workload.sampler_jobs(), "decode", workload)
    assert found.counts is not None
    assert max(c.group for c in found.counts.collectives) == 4
    assert {c.over for c in found.counts.collectives} == {"ici"}


@pytest.mark.parametrize("name", ["v5e-3", "v9-8", "v5e", "v5p-2", "v5e-512", "v4-32"])
def test_slices_that_do_not_exist(name):
    with pytest.raises(ValueError, match="no TPU slice"):
        chips.parse_slice(name)


@pytest.mark.parametrize(
    "name", ["v5e-1", "v5e-8", "v5e-256", "v5p-128", "v6e-256", "tpu7x-128"]
)
def test_the_table_agrees_with_the_compiler(name):
    piece = chips.parse_slice(name)
    found = topology.devices(piece)
    assert len(found) == piece.devices
    assert chips.of_kind(found[0].device_kind) == piece.chip
    if piece.chips > 8 or piece.chip.torus == 3:
        assert len({device.process_index for device in found}) == piece.hosts
