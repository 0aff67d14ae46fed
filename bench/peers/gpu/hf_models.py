"""Models of Hugging Face transformers with random weights, built on the GPU from their configuration: nothing is downloaded and nothing
goes through the host. The linear layers are bf16, or NF4 with double quantization as bitsandbytes makes it from the same numbers;
embedding, head and norms stay bf16, as transformers leaves them.
"""

import shapes


def build(shape, base):
    """A model on the GPU; base: "bf16" or "nf4"."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    config = shapes.llama_config(shape)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    with torch.device("cuda"):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head") and base == "nf4":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nf4_linear(module.in_features, module.out_features))
    fill(model)
    model.tie_weights()
    if base == "nf4":
        model.is_loaded_in_4bit = True  # what PEFT asks, to choose its layers
    return model


def nf4_linear(inputs, outputs):
    import bitsandbytes
    import torch

    layer = bitsandbytes.nn.Linear4bit(inputs, outputs, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=True,
                                       device="meta")
    weight = torch.empty(outputs, inputs, dtype=torch.bfloat16, device="cuda").normal_(0, 0.02)
    layer.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer).to("cuda")
    return layer


def fill(model):
    """Numbers for every parameter that has none yet: ones for norms, else normal ones."""
    import torch

    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if value.is_meta:
                numbers = torch.empty(value.shape, dtype=torch.bfloat16, device="cuda")
                numbers = numbers.fill_(1) if value.dim() == 1 else numbers.normal_(0, 0.02)
                setattr(module, name, torch.nn.Parameter(numbers, requires_grad=False))
