"""Random, non-zero LoRA adapters by the recipe, and the PEFT folder that holds one (written with safetensors alone).

An adapter is {module: (A (rank, in), B (out, rank))} with Hugging Face's module names; A and B of module M of layer L are the
streams "lora layers.L.M.A" and "lora layers.L.M.B", M being the last part of the name (tests/golden/README.md)."""

import json
import pathlib

import numpy as np
import safetensors.numpy

import recipe
import tiny_models


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
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": False, "use_rslora": False, "use_dora": False, "inference_mode": True, "modules_to_save": None,
        "target_modules": sorted({m.split(".")[-1] if place == "model." else m for m in adapter})}, indent=1))
