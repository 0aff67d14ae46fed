"""Prefill and greedy decoding of one sequence with transformers' generate, timed on the GPU: the forward pass over the prompt, and new
tokens a second after it, with generate's own defaults. (A static cache, for which transformers compiles the decoding step, takes longer to
compile than a table may take.)
"""

import statistics
import time

import hf_models


class Generator:
    def __init__(self, shape, base):
        import torch

        torch.manual_seed(0)
        self.model = hf_models.build(shape, base).eval()

    def prefill(self, length, repeats):
        import torch

        ids = torch.randint(0, self.model.config.vocab_size, (1, length), device="cuda")
        torch.cuda.reset_peak_memory_stats()
        rates = []
        with torch.inference_mode():
            for _ in range(repeats + 1):
                torch.cuda.synchronize()
                start = time.perf_counter()
                self.model(input_ids=ids, use_cache=True, logits_to_keep=1)
                torch.cuda.synchronize()
                rates.append(length / (time.perf_counter() - start))
        return self.result(rates[1:])

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
        return self.result(rates[1:])

    def seconds(self, ids, tokens):
        import torch

        torch.cuda.synchronize()
        start = time.perf_counter()
        self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                            pad_token_id=0)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    @staticmethod
    def result(rates):
        import torch

        return {"tokens_per_second": statistics.median(rates), "spread": [min(rates), max(rates)], "peak_bytes": torch.cuda.max_memory_allocated()}
