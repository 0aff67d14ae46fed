"""The table of scripts/bench gpu attention: causal attention in bf16, 32 heads over 8 of keys and values, forward and forward with backward,
ours (bench/gpu_attention.cpp) against PyTorch's scaled_dot_product_attention on cuDNN and on FlashAttention 2. A forward
pass counts 4 × length² × heads × dim / 2 operations, a backward pass 2.5 times as many. The limit is the probed
rate of bf16 products.
"""

from common import OURS, lines, measured
from recorded import CUDNN, FA2

HEADS, KV_HEADS = 32, 8
SHAPES = tuple((rows, length, dim) for dim in (128, 64) for rows, length in ((4, 2048), (1, 8192), (1, 32768)))
BACKENDS = {CUDNN: "cudnn", FA2: "flash"}


def operations(rows, length, dim, both):
    return 4.0 * rows * length * length * HEADS * dim / 2 * (3.5 if both else 1)


def ours(rows, length, dim):
    [row] = lines(measured(OURS.with_name("gpu_attention"), f"{rows}x{length}x{HEADS}x{KV_HEADS}x{dim}", timeout=60)[0])
    return {"forward": row["forward_seconds"], "both": row["forward_seconds"] + row["backward_seconds"]}


def peer(session, backend, rows, length, dim):
    answer = session.peers.ask(do="attention", backend=backend, rows=rows, length=length, heads=HEADS, kv_heads=KV_HEADS, dim=dim)
    return {**answer, "forward": answer["forward_seconds"], "both": answer["both_seconds"]} if answer["ok"] else answer


def measure(session):
    for rows, length, dim in SHAPES:
        name = f"d{dim} {rows}x{length}"
        if not any(session.wanted(f"{name} {part}") for part in ("forward", "both")):
            continue
        peers = {who: {"": lambda backend=backend: peer(session, backend, rows, length, dim)} for who, backend in BACKENDS.items()}
        turns = session.take_turns(name, lambda: ours(rows, length, dim), peers)
        for part in ("forward", "both"):
            session.add(f"{name} {part}", "TF/s", turns.part(part, operations(rows, length, dim, part == "both") / 1e12),
                        session.limits["bf16"] / 1e12 if session.limits else None)
