"""A LoRA training step of transformers + PEFT (+ bitsandbytes), rank 16 on the seven linears, timed on the GPU.

A setting says how: "checkpoint" (gradient checkpointing), "adapters" ("bf16", or "fp32" under autocast), "sdpa" ("auto" or "cudnn": which of
PyTorch's attention kernels goes first), "optimizer" (bitsandbytes' 8-bit AdamW, paged or not, or PyTorch's fused one).
"""

import contextlib
import statistics
import time

import hf_models

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def optimizer_of(name, parameters):
    import torch

    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    import bitsandbytes

    kind = {"adamw8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw8bit": bitsandbytes.optim.PagedAdamW8bit}[name]
    return kind(parameters, lr=1e-4)


def attention_of(name):
    if name == "auto":
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True)


class Trainer:
    """One adapted model, kept between measurements of the same base."""

    def __init__(self, shape, base, adapters):
        import peft
        import torch

        torch.manual_seed(0)
        model = hf_models.build(shape, base)
        model.config.use_cache = False
        model.enable_input_require_grads()
        config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
        self.model = peft.get_peft_model(model, config, autocast_adapter_dtype=adapters == "fp32")
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        if adapters == "bf16":
            for p in self.trained:
                p.data = p.data.to(torch.bfloat16)
        self.adapters = adapters
        self.model.train()

    def checkpoint(self, on):
        if on:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()

    def measure(self, rows, length, steps, checkpoint, optimizer, sdpa):
        import torch

        self.checkpoint(checkpoint)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        stepper = optimizer_of(optimizer, self.trained)
        ids = torch.randint(0, self.model.config.vocab_size, (rows, length), device="cuda")
        seconds = []
        with attention_of(sdpa), torch.autocast("cuda", torch.bfloat16, enabled=self.adapters == "fp32"):
            for _ in range(steps + 1):
                torch.cuda.synchronize()
                start = time.perf_counter()
                self.model(input_ids=ids, labels=ids).loss.backward()
                stepper.step()
                stepper.zero_grad(set_to_none=True)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated()
        del stepper
        torch.cuda.empty_cache()
        rates = [rows * length / s for s in seconds[1:]]  # the first step builds kernels
        return {"tokens_per_second": statistics.median(rates), "spread": [min(rates), max(rates)], "peak_bytes": peak,
                "first_step_seconds": seconds[0]}
