"""The GPU's peers in one Python process, so that a model is built once and asked again in every round, in turn with Supersonic.

Reads requests as JSON lines and answers each with one JSON line: {"ok": true, …} or {"ok": false, "error": text, "remedy": text}.
    {"do": "limits"}                                copy rate (bytes a second, read and written), bf16 product rate (operations a second)
    {"do": "train", "shape": "8b", "base": "nf4", "rows": 2, "length": 2048, "steps": 3, "checkpoint": true, "adapters": "bf16",
     "optimizer": "adamw8bit", "sdpa": "auto"}
    {"do": "decode", "shape": "8b", "base": "bf16", "prompt": 16, "tokens": 64, "repeats": 1}
    {"do": "attention", "backend": "cudnn", "rows": 4, "length": 2048, "heads": 32, "kv_heads": 8, "dim": 128}
Bytes are PyTorch's peak of allocated bytes, weights included. What libraries print goes to stderr.
"""

import gc
import json
import os
import sys


class Server:
    def __init__(self):
        self.kept = None  # (what it was built for, model)

    def model(self, kind, *arguments):
        """The model for these arguments: the one in hand, or a new one after that is gone."""
        import torch

        if self.kept is None or self.kept[0] != (kind, arguments):
            self.kept = None
            gc.collect()
            torch.cuda.empty_cache()
            self.kept = ((kind, arguments), kind(*arguments))
        return self.kept[1]

    def limits(self):
        import attention
        import torch

        a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        c, big = torch.empty_like(a), torch.empty(1 << 29, dtype=torch.float32, device="cuda").normal_()
        target = torch.empty_like(big)
        product = attention.timed(torch, lambda: torch.mm(a, b, out=c), 8, 0.02)
        copy = attention.timed(torch, lambda: target.copy_(big), 8, 0.02)
        del a, b, c, big, target
        torch.cuda.empty_cache()
        return {"bf16": 2 * 8192**3 / product, "copy": 2 * (1 << 31) / copy, "device": torch.cuda.get_device_name(),
                "total_bytes": torch.cuda.get_device_properties(0).total_memory, "versions": versions()}

    def train(self, shape, base, adapters, **how):
        import hf_train

        return self.model(hf_train.Trainer, shape, base, adapters).measure(**how)

    def decode(self, shape, base, **how):
        import hf_generate

        return self.model(hf_generate.Generator, shape, base).decode(**how)

    def attention(self, **how):
        import attention

        return attention.measure(**how)

    def answer(self, request):
        try:
            return {"ok": True, **getattr(self, request.pop("do"))(**request)}
        except ImportError as e:
            self.kept = None
            return {"ok": False, "error": str(e), "remedy": f"{sys.executable} -m pip install {e.name}" if e.name else ""}
        except Exception as e:  # a peer's failure is a row's result, whatever it is
            self.kept = None
            name = type(e).__name__
            return {"ok": False, "error": "out of memory" if name == "OutOfMemoryError" else f"{name}: {e}"[:500], "remedy": ""}


def versions():
    import importlib.metadata

    found = {}
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # less is lost between blocks of many sizes
    server = Server()
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
