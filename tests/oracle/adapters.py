"""Random, non-zero LoRA adapters by the recipe, and the PEFT folder that holds one (written with safetensors alone).

Those of experts are as PEFT keeps them on the fused parameters of transformers 5: A (experts * rank, in), row e * rank + r, and B (out,
rank * experts), column r * experts + e; gate and up are one parameter, the inner one of two wraps ("experts.base_layer"), down the outer.

An adapter is {module: (A (rank, in), B (out, rank))} with Hugging Face's module names; A and B of module M of layer L are the
streams "lora layers.L.M.A" and "lora layers.L.M.B", M being the last part of the name (tests/golden/README.md)."""

import json
import pathlib

import numpy as np
import safetensors.numpy

import recipe
import tiny_models


MIXTURES = ("mixtral", "qwen3_moe", "qwen3_moe_mixed", "gpt_oss", "gpt_oss_yarn", "gpt_oss_mxfp4")
EXPERT_PARAMETERS = ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]


def make(shapes: dict, rank: int, scale_a: float, scale_b: float) -> dict:
    """shapes: {module: (out, in)} of the adapted linears."""
    out = {}
    for module, (rows, cols) in shapes.items():
        layer, name = module.split(".")[2], module.split(".")[-1]
        out[module] = (recipe.uniform(f"lora layers.{layer}.{name}.A", (rank, cols), scale_a),
                       recipe.uniform(f"lora layers.{layer}.{name}.B", (rows, rank), scale_b))
    return out


def of_tiny(name: str, rank: int) -> dict:
    """All linears of every layer of a model of tiny_models."""
    modules = tiny_models.lora_modules(name)
    shapes = {k.removesuffix(".weight"): v.shape for k, v in tiny_models.tensors(name).items() if k.split(".")[-2] in modules and k.endswith("weight")}
    return make(shapes, rank, 2**-4, 2**-4)


def expert_sizes(name: str) -> tuple:
    """(experts, width of one, the layers that have them)"""
    c = tiny_models.MODELS[name]
    experts = c.get("num_experts", c.get("num_local_experts"))
    layers = [i for i in range(c["num_hidden_layers"]) if i not in c.get("mlp_only_layers", ())]
    return experts, c.get("moe_intermediate_size", c["intermediate_size"]), layers


def of_mixture(name: str, rank: int) -> dict:
    """Attention's linears and the experts. A and B of the experts of layer L are the streams "lora layers.L.experts.gate_up_proj.A" and so on."""
    experts, width, layers = expert_sizes(name)
    hidden = tiny_models.MODELS[name]["hidden_size"]
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    shapes = {k.removesuffix(".weight"): v.shape for k, v in tiny_models.tensors(name).items() if k.split(".")[-2] in attention and k.endswith("weight")}
    out = make(shapes, rank, 2**-4, 2**-4)
    for layer in layers:
        for parameter, wrap, rows, cols in (("gate_up_proj", ".base_layer", 2 * width, hidden), ("down_proj", "", hidden, width)):
            draw = lambda matrix, shape: recipe.uniform(f"lora layers.{layer}.experts.{parameter}.{matrix}", shape, 2**-4)
            out[f"model.layers.{layer}.mlp.experts{wrap}"] = (draw("A", (experts * rank, cols)), draw("B", (rows, rank * experts)))
    return out


def by_expert(a, b, experts: int) -> tuple:
    """(A (experts, rank, in), B (experts, out, rank)) of a pair as it is stored."""
    return a.reshape(experts, -1, a.shape[1]), b.reshape(b.shape[0], -1, experts).transpose(2, 0, 1)


def write(folder, adapter: dict, rank: int, alpha: float, base: str = "base", place: str = "model.") -> None:
    """place: what PEFT has in front of "layers" in the base model's class."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    adapter = {module.replace("model.", place, 1): matrices for module, matrices in adapter.items()}
    for module, (a, b) in adapter.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b)
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    parameter = lambda m: m.endswith((".experts", ".experts.base_layer"))
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": False, "use_rslora": False, "use_dora": False, "inference_mode": True, "modules_to_save": None,
        "target_modules": sorted({m.split(".")[-1] if place == "model." else m for m in adapter if not parameter(m)}),
        "target_parameters": EXPERT_PARAMETERS if any(map(parameter, adapter)) else None}, indent=1))
