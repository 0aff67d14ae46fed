"""Greedy decoding of one sequence with transformers' generate, timed on the GPU: new tokens a second after the prompt, with generate's own
defaults. (A static cache, for which transformers compiles the decoding step, takes longer to compile than a table may take.)
"""

import statistics
import time

import hf_models


class Generator:
    def __init__(self, shape, base):
        import torch

        torch.manual_seed(0)
        self.model = hf_models.build(shape, base).eval()

    def decode(self, prompt, tokens, repeats):
        """Tokens a second after the first one: a run of many tokens less a run of one."""
        import torch

        ids = torch.randint(0, self.model.config.vocab_size, (1, prompt), device="cuda")
        torch.cuda.reset_peak_memory_stats()
        rates = []
        with torch.inference_mode():
            for _ in range(repeats + 1):
                short, long = (self.seconds(ids, n) for n in (1, tokens))
                rates.append((tokens - 1) / (long - short))
        return {"tokens_per_second": statistics.median(rates[1:]), "spread": [min(rates[1:]), max(rates[1:])],
                "peak_bytes": torch.cuda.max_memory_allocated()}

    def seconds(self, ids, tokens):
        import torch

        torch.cuda.synchronize()
        start = time.perf_counter()
        self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                            pad_token_id=0)
        torch.cuda.synchronize()
        return time.perf_counter() - start
