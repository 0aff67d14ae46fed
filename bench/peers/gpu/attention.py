"""PyTorch's attention, causal, bf16, rows of one length: cuDNN's kernels or FlashAttention 2, as scaled_dot_product_attention chooses them on
request, forward and forward with backward, each replayed from a CUDA graph, so that no launch is waited for. Both layouts are tried
(heads outside of tokens, and tokens outside of heads as models have them) and the better one counts.
"""


def measure(backend, rows, length, heads, kv_heads, dim, repeats=5):
    """{"forward_seconds", "both_seconds", "grouped"}: grouped is false where the kernels need as many heads of keys as of queries."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[backend]
    results, reason = [], ""
    with sdpa_kernel(kind):
        for grouped in (True, False) if heads != kv_heads else (False,):
            for tokens_outside in (False, True):
                try:
                    results.append(times(torch, rows, length, heads, kv_heads if grouped else heads, dim, tokens_outside, repeats))
                except RuntimeError as e:
                    reason = str(e)
            if results:
                break
    if not results:
        raise RuntimeError(f"{backend}: {reason}")
    return {"forward_seconds": min(r[0] for r in results), "both_seconds": min(r[1] for r in results), "grouped": grouped}


def times(torch, rows, length, heads, kv_heads, dim, tokens_outside, repeats):
    def operand(n):
        shape = (rows, length, n, dim) if tokens_outside else (rows, n, length, dim)
        x = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
        return (x.transpose(1, 2) if tokens_outside else x).requires_grad_()

    q, k, v = operand(heads), operand(kv_heads), operand(kv_heads)
    gradient = torch.randn_like(q)

    def forward():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)

    def both():
        return torch.autograd.grad(forward(), (q, k, v), gradient)

    return seconds(torch, forward, repeats), seconds(torch, both, repeats)


def seconds(torch, work, repeats):
    """Seconds of one run in the shortest of `repeats` batches of replays."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return timed(torch, graph.replay, repeats)


def timed(torch, launch, repeats, least_seconds=0.03):
    """Seconds of one launch in the shortest batch; each takes about `least_seconds`."""
    def batch(n):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(n):
            launch()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / n

    batch(2)
    n = max(1, int(least_seconds / batch(2)))
    return min(batch(n) for _ in range(repeats))
