"""llama.cpp's own server on one GGUF file, until standard input ends.

python llama_server.py MODEL.gguf SLOTS; prints its address.
"""

import sys

if __name__ == "__main__":
    # Here, since pytest imports every file to look for examples.
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, slots = sys.argv[1], int(sys.argv[2])
    params.n_parallel, params.n_ctx = slots, 256 * slots
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
