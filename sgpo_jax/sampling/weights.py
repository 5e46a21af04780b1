"""Weights of inference servers: written to a folder, and loaded from there by each."""

import dataclasses
import http.client
import pathlib
import secrets
import shutil
import weakref
from collections.abc import Mapping
from concurrent import futures
from typing import Any, Literal

import jax

from sgpo_jax import models
from sgpo_jax.sampling.exchange import RefusedError
from sgpo_jax.sampling.server import Server

Refresh = Literal["sglang", "vllm-lora"]
"""Protocol of weight updates of a running server:

* `sglang`: the whole model, by `/update_weights_from_disk`;
* `vllm-lora`: adapters, by `/v1/load_lora_adapter`, under a name of their own.
"""


class RefreshError(RuntimeError):
    """A server could not be given new weights."""


class ServedWeights:
    """Keeps the weights of servers those of the policy that is sampled from.

    Every set of weights has a name that no other has: servers of vLLM are asked for the
    model of that name, SGLang's answers name the weights that gave them. So a server
    that was started again with other weights fails, and never answers unnoticed.

    Args:
      server: the client.
      refresh: how servers load weights.
      folder: where weights are written; servers must see it under the same path. Other
        runs may write there, too.
      policy: shape, tokenizer and published configuration.
    """

    def __init__(
        self,
        server: Server,
        *,
        refresh: Refresh,
        folder: pathlib.Path,
        policy: models.Policy,
    ):
        self._server, self._refresh, self._policy = server, refresh, policy
        self._folder = folder.expanduser().resolve()
        self._nonce, self._count = secrets.token_hex(4), 0
        self._held: list[weakref.ref] = []

    def hold(self, params: models.Params) -> Server:
        """Return the client of servers that sample from these parameters.

        They are written and loaded unless it is these that the servers have.

        Raises:
          RefreshError: naming the server that did not load them.
        """
        leaves = jax.tree.leaves(params)
        held = [reference() for reference in self._held]
        if len(held) == len(leaves) and all(
            one is other for one, other in zip(held, leaves, strict=True)
        ):
            return self._server
        self._held = []
        self._count += 1
        version = f"sgpo-{self._nonce}-{self._count}"
        folder = self._write(version, params)
        old = self._server
        with futures.ThreadPoolExecutor(len(old.urls)) as pool:
            list(pool.map(lambda url: self._load(url, folder, version), old.urls))
        if self._refresh == "sglang":
            self._server = dataclasses.replace(old, version=version, interface="sglang")
        else:
            self._server = dataclasses.replace(old, model=version)
            if self._count > 1:
                self._unload(old)
        for path in self._folder.glob(f"sgpo-{self._nonce}-*"):
            if path != folder:
                shutil.rmtree(path, ignore_errors=True)
        self._held = [weakref.ref(leaf) for leaf in leaves]
        return self._server

    def forget(self) -> None:
        """Have the servers load weights again before they are asked for samples."""
        self._held = []

    def _write(self, version: str, params: models.Params) -> pathlib.Path:
        folder = self._folder / version
        policy = self._policy.with_params(params, identity=version)
        models.save(policy, folder, merged=self._refresh == "sglang")
        return folder

    def _load(self, url: str, folder: pathlib.Path, version: str) -> None:
        """Have a server load a folder."""
        if self._refresh == "sglang":
            to = f"{url.removesuffix('/v1')}/update_weights_from_disk"
            body = {"model_path": str(folder), "weight_version": version}
        else:
            to = f"{url}/load_lora_adapter"
            body = {"lora_name": version, "lora_path": str(folder)}
        try:
            answer = self._post(to, body)
        except (OSError, http.client.HTTPException, RefusedError) as error:
            raise RefreshError(
                f"{to} did not load {folder}: {error}; {_REMEDY[self._refresh]}"
            ) from None
        if self._refresh == "sglang" and answer.get("success") is not True:
            raise RefreshError(
                f"{to} did not load {folder}: {str(answer)[:200]};"
                f" {_REMEDY[self._refresh]}"
            )

    def _unload(self, old: Server) -> None:
        """Have servers forget adapters; they drop what is asked for least, anyway."""
        for url in old.urls:
            try:
                self._post(f"{url}/unload_lora_adapter", {"lora_name": old.model})
            except (OSError, http.client.HTTPException, RefusedError):
                continue

    def _post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._server.post([url], body, text=self._refresh == "vllm-lora")


_REMEDY = {
    "sglang": "the folder must be on a file system that the server sees under the same"
    " path (sampler.weights), and the model it serves of the same shape",
    "vllm-lora": "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora"
    " and a --max-lora-rank of at least the policy's; it must see the folder under the"
    " same path (sampler.weights)",
}
