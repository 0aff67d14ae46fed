"""Times a LoRA training step of Hugging Face transformers + PEFT: SmolLM2-135M-Instruct's shapes and weights, 4 × 256 tokens,
rank 16 on the seven linears, AdamW. Prints one JSON line a setting:
    {"work": "lora_step", "setting": "bf16", "tokens_per_second": median, "spread": [min, max], "peak_rss_gib": g}
    python bench/peers/hf_lora_step.py [--settings bf16,fp32,bf16-checkpoint] [--steps 5] [--threads N] [--batch 4] [--length 256]
Each setting runs in a process of its own, so that its peak memory is its own. Run with the interpreter of scripts/peers.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = pathlib.Path(os.environ.get("SUPERSONIC_CACHE", ROOT / ".cache")) / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def measure(setting, steps, threads, batch, length):
    os.environ.setdefault("TQDM_DISABLE", "1")
    import peft
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dtype = torch.float32 if setting.startswith("fp32") else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL.parent, gguf_file=MODEL.name, dtype=dtype, attn_implementation="sdpa")
    model.config.use_cache = False
    if setting.endswith("checkpoint"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4)
    ids = torch.randint(0, model.config.vocab_size, (batch, length))
    rates = []
    for step in range(steps + 1):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step:  # the first one builds kernels
            rates.append(batch * length / (time.perf_counter() - start))
    rates.sort()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"work": "lora_step", "setting": setting, "tokens_per_second": rates[len(rates) // 2], "spread": [rates[0], rates[-1]],
            "peak_rss_gib": peak, "threads": threads, "tokens": batch * length, "torch": torch.__version__, "transformers": transformers.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="bf16,fp32,bf16-checkpoint")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    arguments = parser.parse_args()
    settings = arguments.settings.split(",")
    if len(settings) == 1:
        print(json.dumps(measure(settings[0], arguments.steps, arguments.threads, arguments.batch, arguments.length)), flush=True)
        return
    for setting in settings:
        subprocess.run([sys.executable, __file__, "--settings", setting, "--steps", str(arguments.steps), "--threads", str(arguments.threads),
                        "--batch", str(arguments.batch), "--length", str(arguments.length)], check=True)


if __name__ == "__main__":
    main()
