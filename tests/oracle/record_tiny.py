"""Records what transformers and PEFT make of the small random models of tiny_models.py, in tests/golden/tiny: one part a model,
with logits at every position, and the loss and every LoRA gradient (rank 8, alpha 16, A and B non-zero) of two sequences.
All in float64, but for what transformers itself computes in float32 there: the angles of rotary embedding.
With --check it computes all again and compares. Needs scripts/peers --python-only. Schema: tests/golden/README.md.
"""

import functools
import re
import tempfile

import numpy as np
import peft
import torch
import transformers

import golden
import recipe
import tiny_models

transformers.utils.logging.disable_progress_bar()


def load(name):
    with tempfile.TemporaryDirectory() as folder:
        tiny_models.write(name, folder, shards=2 if name == "mistral" else 1)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval().double()


def record(name):
    model = load(name)
    vocabulary = tiny_models.MODELS[name]["vocab_size"]
    sequences = [recipe.below(f"{name} ids {k}", length, vocabulary) for k, length in enumerate((200, 33))]
    arrays, rows = {}, []
    with torch.no_grad():
        for k, ids in enumerate(sequences):
            wanted = model(torch.tensor(ids[None])).logits[0].numpy()
            rows.append({"ids": ids.tolist()})
            arrays |= {
                f"{k}/norm": ("f64", np.linalg.norm(wanted, axis=1)), f"{k}/projections": ("f32", recipe.projections(wanted)),
                f"{k}/last_logits": ("f32", wanted[-1]), f"{k}/argmax": ("i32", wanted.argmax(1)),
            }
    targets = tiny_models.lora_modules(name)
    if name in tiny_models.NESTED:  # the vision part has modules of these names too
        targets = rf".*\.language_model\..*\.({'|'.join(targets)})"
    config = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    parameters = {}
    for full, parameter in model.named_parameters():
        found = re.search(r"layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])\.", full)
        if found:
            short = "layers.{}.{}.{}".format(*found.groups())
            parameter.data = torch.from_numpy(recipe.uniform(f"lora {short}", parameter.shape, 2.0**-4)).double()
            parameters[short] = parameter
    total, count = 0.0, 0
    for ids in sequences:
        out = model(torch.tensor(ids[None])).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(out, torch.tensor(ids[1:]), reduction="sum")
        count += len(ids) - 1
    (total / count).backward()
    gradients = [p.grad.numpy() for p in parameters.values()]
    arrays |= {
        "gradient_norm": ("f64", np.array([np.linalg.norm(g) for g in gradients])),
        "gradient_projections": ("f32", np.array([recipe.projections(g.reshape(-1)) for g in gradients])),
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    data = {"versions": versions, "model": name, "sequences": rows, "rank": 8, "alpha": 16, "scale_A": 2.0**-4, "scale_B": 2.0**-4,
            "loss": float((total / count).detach()), "names": list(parameters)}
    return data, arrays, {"gradient_projections": 1e-4, "argmax": None}


if __name__ == "__main__":
    golden.run("tiny", {name: functools.partial(record, name) for name in tiny_models.MODELS})
