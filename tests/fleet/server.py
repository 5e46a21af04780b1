"""An inference server of real weights: it loads what it is told to and samples it.

Two dialects over HTTP, those of SGLang and of vLLM with adapters, on this package's own
engine.
"""

import contextlib
import functools
import http.server
import json
import threading

import numpy as np

from sgpo_jax import models, sampling

LONGEST = 16
LOCK = threading.Lock()  # of all servers: they share compiled engines


@functools.cache
def _engine(config, max_response, stop_tokens):
    return sampling.Engine(
        config,
        lanes=1,
        slots=1,
        max_prompt=LONGEST,
        max_response=max_response,
        stop_tokens=stop_tokens,
    )


class Listener(http.server.ThreadingHTTPServer):
    """Room for as many connections at once as a client opens; the default is 5."""

    request_queue_size = 128


class Fault(Exception):
    """An HTTP status and its text."""


class PolicyServer:
    """Serves policies by name.

    Attributes:
      policy: what it was started with, for adapters the base of them.
      base: folder of that.
      calls: path and body of every request that is not for a sample.
      asked: path and body of those that are.
      fail: raises `Fault` for a body, or does nothing.
      silent: whether the sample of a seed comes without log-probabilities.
    """

    def __init__(self, policy, base, *, max_response=4):
        self.policy, self.base, self.max_response = policy, base, max_response
        self.served = {"default": policy}
        self.version = "default"
        self.calls, self.asked = [], []
        self.fail = lambda path, body: None
        self.silent = lambda seed: False

    def restart(self):
        """Forget all that was loaded."""
        self.served, self.version = {"default": self.policy}, "default"

    def answer(self, path, body):
        self.fail(path, body)
        match path:
            case "/update_weights_from_disk":
                self.calls.append((path, body))
                self.served["default"] = models.load(f"hf:{body['model_path']}")
                self.version = body["weight_version"]
                return {"success": True, "message": "Succeeded to update weights."}
            case "/v1/load_lora_adapter":
                self.calls.append((path, body))
                if body["lora_name"] in self.served:
                    raise Fault(400, "has already been loaded")
                loaded = models.load(f"hf:{self.base}", adapters=body["lora_path"])
                self.served[body["lora_name"]] = loaded
                return f"Success: LoRA adapter '{body['lora_name']}' added."
            case "/v1/unload_lora_adapter":
                self.calls.append((path, body))
                if self.served.pop(body["lora_name"], None) is None:
                    raise Fault(404, "cannot be found")
                return f"Success: LoRA adapter '{body['lora_name']}' removed."
            case "/generate":
                self.asked.append((path, body))
                return self._generate(body)
            case "/v1/completions":
                self.asked.append((path, body))
                if body["model"] not in self.served:
                    raise Fault(404, f"The model `{body['model']}` does not exist.")
                return self._complete(body)
        raise Fault(404, "Not Found")

    def _generate(self, body):
        choice = body["sampling_params"]
        ids, log_prob, ended = self._sample(
            "default",
            body["input_ids"],
            choice["max_new_tokens"],
            choice["sampling_seed"],
        )
        if self.silent(choice["sampling_seed"]):
            log_prob = [None] * len(ids)
        reason = {"type": "stop", "matched": ids[-1]} if ended else {"type": "length"}
        return {
            "text": self.served["default"].tokenizer.decode(ids),
            "output_ids": ids,
            "meta_info": {
                "finish_reason": reason,
                "prompt_tokens": len(body["input_ids"]),
                "output_token_logprobs": [
                    [one, token, None] for one, token in zip(log_prob, ids, strict=True)
                ],
                "weight_version": self.version,
            },
        }

    def _complete(self, body):
        ids, log_prob, ended = self._sample(
            body["model"], body["prompt"], body["max_tokens"], body["seed"]
        )
        choice = {
            "text": self.served[body["model"]].tokenizer.decode(ids),
            "finish_reason": "stop" if ended else "length",
            "stop_reason": None,
            "token_ids": ids,
            "logprobs": {"token_logprobs": log_prob},
        }
        return {"choices": [choice], "usage": {"prompt_tokens": len(body["prompt"])}}

    def _sample(self, name, prompt, budget, seed):
        policy = self.served[name]
        engine = _engine(
            policy.config, self.max_response, tuple(policy.tokenizer.stop_ids)
        )
        request = sampling.Request(key=0, prompt=prompt, samples=1, budget=budget)
        found = engine.sample(policy.params, [request], seed=seed, step=0)
        length = int(found.length[0])
        return (
            found.tokens[0, :length].tolist(),
            found.log_prob[0, :length].astype(np.float64).tolist(),
            bool(found.finished[0]),
        )

    @contextlib.contextmanager
    def serve(self):
        """Listen; give the address."""
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    with LOCK:
                        status, reply = 200, owner.answer(self.path, body)
                except Fault as fault:
                    status, reply = fault.args
                text = reply if isinstance(reply, str) else json.dumps(reply)
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        listening = Listener(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/v1"
        finally:
            listening.shutdown()
            thread.join()
            listening.server_close()
