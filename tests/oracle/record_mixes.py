"""Records tests/golden/io/mixes.json: which type llama-quantize gives each matrix, for every mixture that this project writes.

    python tests/oracle/record_mixes.py [--check] [--tool llama-quantize]

Recorded with the llama.cpp of llama-cpp-python 0.3.36 (scripts/peers builds its llama-quantize) and gguf 0.19.0. The models are
shapes alone, the weights are zero: llama-quantize --dry-run names the types without computing anything. For each model and
mixture the types of a kind of matrix stand in the order of the layers, equal neighbours counted: "q6_K*2 q4_K*13".
Python only; nothing of this project is imported.
"""

import argparse
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "io" / "mixes.json"
TOOL = ROOT / ".cache" / "peers" / "build" / "bin" / "llama-quantize"
MIXES = ("Q8_0", "Q6_K", "Q5_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
         "Q3_K", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "MXFP4_MOE", "TQ2_0", "TQ1_0")  # fmt: skip
# layers, heads, heads of keys and values, width, experts, whether the embedding is the output
MODELS = {
    "small": (5, 4, 4, 256, 0, False),
    "grouped": (17, 8, 2, 256, 0, True),
    "in_pairs": (32, 4, 2, 256, 0, False),
    "rows_of_576": (30, 9, 3, 576, 0, True),
    "rows_of_100": (3, 5, 5, 100, 0, False),
    "largest_llama": (80, 8, 1, 256, 0, False),
    "80_layers_in_pairs": (80, 4, 2, 256, 0, False),
    "eight_experts": (16, 8, 2, 256, 8, False),
    "four_experts": (9, 4, 4, 256, 4, False),
}


def write_model(path, layers, heads, kv_heads, width, experts, tied):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(layers)
    w.add_context_length(64)
    w.add_embedding_length(width)
    w.add_feed_forward_length(width)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(8)
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(2)
    zeros = lambda name, *shape: w.add_tensor(name, np.zeros(shape, np.float16 if len(shape) > 1 else np.float32))
    zeros("token_embd.weight", 8, width)
    for i in range(layers):
        kv, stack = width // heads * kv_heads, (experts,) if experts else ()
        end = "_exps" if experts else ""
        for name, shape in {"attn_norm": (width,), "attn_q": (width, width), "attn_k": (kv, width), "attn_v": (kv, width),
                            "attn_output": (width, width), "ffn_norm": (width,), f"ffn_gate{end}": (*stack, width, width),
                            f"ffn_up{end}": (*stack, width, width), f"ffn_down{end}": (*stack, width, width)}.items():  # fmt: skip
            zeros(f"blk.{i}.{name}.weight", *shape)
        if experts:
            zeros(f"blk.{i}.ffn_gate_inp.weight", experts, width)
    zeros("output_norm.weight", width)
    if not tied:
        zeros("output.weight", 8, width)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def types_of(tool, model, mix) -> dict:
    """{"attn_v": "q6_K*2 q4_K*13"}, and llama.cpp's number for general.file_type."""
    done = subprocess.run([tool, "--dry-run", model, mix], capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"record_mixes: llama-quantize failed:\n{done.stderr[-2000:]}")
    found = {}
    for name, old, new in re.findall(r"(\S+)\.weight +- \[[^]]*\], type = +(\w+), size = [^\n]*?MiB(?: -> [^\n]*?\((\w+)\))?\n", done.stdout + done.stderr):
        match = re.fullmatch(r"blk\.(\d+)\.(.*)", name)
        if not name.endswith("_norm"):
            found.setdefault(match[2] if match else name, []).append((int(match[1]) if match else 0, new or old))
    runs = {k: [(t, len(list(g))) for t, g in itertools.groupby(t for _, t in sorted(v))] for k, v in found.items()}
    return {k: " ".join(f"{t}*{n}" if n > 1 else t for t, n in v) for k, v in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--tool", default=TOOL)
    args = parser.parse_args()
    out = {}
    for name, (layers, heads, kv_heads, width, experts, tied) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "m.gguf"
            write_model(model, layers, heads, kv_heads, width, experts, tied)
            types = {mix.lower(): types_of(args.tool, model, mix) for mix in MIXES}
        out[name] = {"layers": layers, "heads": heads, "kv_heads": kv_heads, "width": width, "experts": experts, "tied": tied, "types": types}
    text = json.dumps(out, indent=1) + "\n"
    if args.check and GOLDEN.read_text() != text:
        sys.exit("record_mixes: mixes.json is no longer equal")
    if not args.check:
        GOLDEN.write_text(text)
    print(f"mixes.json: {len(text)} bytes")


if __name__ == "__main__":
    main()
