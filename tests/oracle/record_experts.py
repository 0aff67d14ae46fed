"""Records the loss and every gradient of LoRA adapters on the experts of tiny_models.py's mixtures (and on attention beside them), in
tests/golden/experts: PEFT's target_parameters on the fused matrices of transformers, rank 8, alpha 16, A and B non-zero, in float64.
With --check it computes all again and compares. Needs scripts/peers --python-only. Schema: tests/golden/README.md.
"""

import functools

import numpy as np
import peft
import torch
import transformers

import adapters
import golden
import recipe
import tiny_models
from record_tiny import load

RANK, ALPHA = 8, 16


def record(name):
    model = load(name)
    sequences = [recipe.below(f"{name} ids {k}", length, tiny_models.MODELS[name]["vocab_size"]) for k, length in enumerate((200, 33))]
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=tiny_models.lora_modules(name),
                             target_parameters=adapters.EXPERT_PARAMETERS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    parameters = {full.removeprefix("base_model.model.").replace(".default", ""): p for full, p in model.named_parameters() if ".lora_" in full}
    given = {f"{module}.lora_{'AB'[k]}.weight": m for module, matrices in adapters.of_mixture(name, RANK).items() for k, m in enumerate(matrices)}
    assert given.keys() == parameters.keys() and all(given[key].shape == tuple(p.shape) for key, p in parameters.items())
    for key, p in parameters.items():
        p.data = torch.from_numpy(given[key]).double()
    total, count = 0.0, 0
    for ids in sequences:
        out = model(torch.tensor(ids[None])).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(out, torch.tensor(ids[1:]), reduction="sum")
        count += len(ids) - 1
    (total / count).backward()
    gradients = [p.grad.numpy() for p in parameters.values()]
    arrays = {
        "gradient_norm": ("f64", np.array([np.linalg.norm(g) for g in gradients])),
        "gradient_projections": ("f32", np.array([recipe.projections(g.reshape(-1)) for g in gradients])),
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    data = {"versions": versions, "model": name, "sequences": [{"ids": ids.tolist()} for ids in sequences], "rank": RANK, "alpha": ALPHA,
            "loss": float((total / count).detach()), "names": list(parameters)}
    return data, arrays, {"gradient_projections": 1e-4}


if __name__ == "__main__":
    golden.run("experts", {name: functools.partial(record, name) for name in adapters.MIXTURES})
