"""Records ten steps of full fine-tuning by transformers and torch's AdamW on the small random models of tiny_models.py, in
tests/golden/full: one part a model, with the loss and the gradient's norm of each step, and what became of every weight.
All in float64, but for what transformers itself computes in float32 there: the angles of rotary embedding. Norms and biases do not
decay, as in transformers' Trainer. With --check it computes all again and compares. Needs scripts/peers --python-only.
Schema: tests/golden/README.md.
"""

import functools
import tempfile

import numpy as np
import torch
import transformers

import golden
import recipe
import tiny_models

transformers.utils.logging.disable_progress_bar()

# An untied head; biases and a tied head; norms of heads; capped logits, weights of norms that count from 1, four norms a layer; fused matrices.
MODELS = ("llama2", "qwen2", "qwen3", "gemma2", "phi")
OPTIMIZER = {"lr": 2.0**-10, "weight_decay": 0.125, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "clip": 1.0}
STEPS, BATCHES, LENGTHS = 10, 3, (70, 41)


def record(name):
    with tempfile.TemporaryDirectory() as folder:
        tiny_models.write(name, folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train().double()
    model.get_input_embeddings().padding_idx = None  # or the row of a padding token that a text has would get no gradient
    vocabulary = tiny_models.MODELS[name]["vocab_size"]
    batches = [[recipe.below(f"{name} full {b} {k}", length, vocabulary).tolist() for k, length in enumerate(LENGTHS)] for b in range(BATCHES)]
    parameters = dict(model.named_parameters())
    before = {key: p.detach().clone() for key, p in parameters.items()}
    o = OPTIMIZER
    groups = [{"params": [p for p in parameters.values() if p.ndim == 2], "weight_decay": o["weight_decay"]},
              {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    losses, norms = [], []
    for step in range(STEPS):
        sequences = batches[step % BATCHES]
        total, count = 0.0, 0
        for ids in sequences:
            out = model(torch.tensor([ids])).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(out, torch.tensor(ids[1:]), reduction="sum")
            count += len(ids) - 1
        (total / count).backward()
        losses.append(float((total / count).detach()))
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), o["clip"])))
        optimizer.step()
        optimizer.zero_grad()
    changes = [(p.detach() - before[key]).numpy().reshape(-1) for key, p in parameters.items()]
    arrays = {
        "change_norm": ("f64", np.array([np.linalg.norm(c) for c in changes])),
        "change_projections": ("f32", np.array([recipe.projections(c) for c in changes])),
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    data = {"versions": versions, "model": name, "optimizer": OPTIMIZER, "steps": STEPS, "batches": batches, "losses": losses, "gradient_norms": norms,
            "names": list(parameters)}
    return data, arrays, {"change_projections": 1e-4}


if __name__ == "__main__":
    golden.run("full", {name: functools.partial(record, name) for name in MODELS})
