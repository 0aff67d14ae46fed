"""Small Hugging Face model folders whose weights come from the recipe (recipe.py), so that no test carries them as a file:
    python tests/oracle/tiny_models.py NAME FOLDER        writes one (about 7 MB as fp32)
Every row of a matrix has a multiple of 256 elements, so that GGUF's K-quants fit. Each differs from the others in what
its family may do. The value of element i of tensor T of model NAME is uniform("NAME T", i) times the scale of its kind:
1/8 a projection, embedding or lm_head, 1/4 a bias, 1 a sink, and 1 + uniform/8 a norm's weight (uniform/8 where weights count from 1); rounded to bf16 where dtype says so.
"""

import json
import pathlib
import sys

import numpy as np
import safetensors

import recipe

COMMON = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 512, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.02,
}
GEMMA = {**COMMON, "hidden_activation": "gelu_pytorch_tanh", "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 48,
         "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "attention_bias": False}
GEMMA.pop("hidden_act")
QWEN3_MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 3, "head_dim": 64,
             "moe_intermediate_size": 256, "decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": False, "use_sliding_window": False,
             "rms_norm_eps": 1e-6}
GPT_OSS = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "head_dim": 64, "num_local_experts": 4, "num_experts_per_tok": 2,
           "intermediate_size": 256, "sliding_window": 48, "layer_types": ["sliding_attention", "full_attention"], "attention_bias": True,
           "swiglu_limit": 7.0, "rope_theta": 150000.0, "rope_scaling": {"rope_type": "default"}, "output_router_logits": False}
PHI3 = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 1, "original_max_position_embeddings": 1024}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False}
MODELS = {
    # As Llama 2 is: one key-value head per query head, an lm_head of its own, no RoPE scaling.
    "llama2": {**COMMON, **LLAMA, "num_key_value_heads": 4, "rms_norm_eps": 1e-6},
    # Llama 3's frequency-dependent RoPE scaling, over a short original context so that 200 positions show it.
    "llama3": {**COMMON, **LLAMA, "rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    # YaRN over a short original context.
    "llama_yarn": {**COMMON, **LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    # Tied embedding, one key-value head per query head, linear RoPE scaling, weights in bf16.
    "llama_tied": {**COMMON, **LLAMA, "num_key_value_heads": 4, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
                   "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    # A head dimension that is not hidden_size / heads.
    "mistral": {**COMMON, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_attention_heads": 8, "head_dim": 64,
                "sliding_window": None, "rope_theta": 1000000.0},
    # A window shorter than the test's longer sequence, in every layer.
    "mistral_window": {**COMMON, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 48},
    # Biases on q, k and v.
    "qwen2": {**COMMON, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
              "use_sliding_window": False, "sliding_window": 1024, "max_window_layers": 2, "rope_theta": 1000000.0},
    # Norms of q's and k's heads, whose size is not hidden_size / heads.
    "qwen3": {**COMMON, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_attention_heads": 8, "head_dim": 64,
              "attention_bias": False, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6},
    # A local and a global layer, which turn differently (the global one scaled, as from 4B on); norms before and after blocks.
    "gemma3": {**GEMMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "rope_theta": 1000000.0,
               "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
               "layer_types": ["sliding_attention", "full_attention"]},
    # Capped scores and logits, a local and a global layer; a cap low enough to bend this model's scores.
    "gemma2": {**GEMMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "attn_logit_softcapping": 5.0,
               "final_logit_softcapping": 3.0},
    # The last of four layers does not turn.
    "smollm3": {**COMMON, **LLAMA, "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "num_hidden_layers": 4, "pad_token_id": 1,
                "no_rope_layer_interval": 4, "use_sliding_window": False, "tie_word_embeddings": True, "rope_theta": 2000000.0},
    # One matrix for q, k and v, one for gate and up; a window, as Phi-3 mini has. (llama.cpp wants certain tokens of models named phi3.)
    "phi": {**COMMON, **PHI3, "sliding_window": 48},
    # Three quarters of a head turn, by factors for contexts beyond the original one (which both sequences are).
    "phi_long": {**COMMON, **PHI3, "sliding_window": None, "partial_rotary_factor": 0.75, "tie_word_embeddings": True,
                  "original_max_position_embeddings": 32, "rope_scaling": {
                      "type": "longrope", "short_factor": [1.0 + k / 64 for k in range(24)], "long_factor": [1.0 + k * k / 16 for k in range(24)]}},
    # The same within it: the factors for short contexts.
    "phi_short": {**COMMON, **PHI3, "sliding_window": None, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 512,
                   "rope_scaling": {"type": "longrope", "short_factor": [1.0 + k / 64 for k in range(24)],
                                    "long_factor": [1.0 + k * k / 16 for k in range(24)]}},
    # Multipliers at every place that has one.
    "granite": {**COMMON, **LLAMA, "architectures": ["GraniteForCausalLM"], "model_type": "granite", "embedding_multiplier": 12.0,
                "residual_multiplier": 0.25, "attention_multiplier": 0.03125, "logits_scaling": 8.0, "tie_word_embeddings": True},
    # Norms after blocks alone; q and k normalised over all heads.
    "olmo2": {**COMMON, "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "attention_bias": False, "rms_norm_eps": 1e-6},
    # Two of four experts in each layer, weights normalised.
    "mixtral": {**COMMON, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2,
                "sliding_window": None, "output_router_logits": False},
    # Three of eight narrow experts; q and k normalised.
    "qwen3_moe": {**COMMON, **QWEN3_MOE, "norm_topk_prob": True},
    # The same with an ordinary MLP in the first layer and weights that are not normalised, which GGUF files cannot say.
    "qwen3_moe_mixed": {**COMMON, **QWEN3_MOE, "norm_topk_prob": False, "mlp_only_layers": [0]},
    # A local and a global layer, sinks, biases everywhere, two of four experts.
    "gpt_oss": {**COMMON, **GPT_OSS},
    # With gpt-oss's YaRN, whose ramp begins and ends between frequencies.
    "gpt_oss_yarn": {**COMMON, **GPT_OSS, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                                           "original_max_position_embeddings": 64, "truncate": False}},
    # Experts as MXFP4 blocks and scales, as the published models have them.
    "gpt_oss_mxfp4": {**COMMON, **GPT_OSS, "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}},
}
# The text part of a model that reads images too, whose config leaves out what its class fills in; the folder is in NESTED.
MODELS["gemma3_images"] = {**MODELS["gemma3"], "num_attention_heads": 8, "num_key_value_heads": 4}
# {name: (config.json around text_config, keys that text_config leaves out, what the tensors' "model." becomes, other tensors' shapes)}
NESTED = {"gemma3_images": (
    {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": [1],
     "boi_token_index": 600, "eoi_token_index": 601, "image_token_index": 602, "mm_tokens_per_image": 4,
     "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                       "num_attention_heads": 2, "image_size": 28, "patch_size": 14}},
    ("architectures", "num_attention_heads", "num_key_value_heads", "torch_dtype", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
    "language_model.model.",
    {"vision_tower.vision_model.embeddings.patch_embedding.weight": (32, 3, 14, 14), "multi_modal_projector.mm_soft_emb_norm.weight": (32,)},
)}
FOLDERS_ONLY = ("qwen3_moe_mixed",)


def lora_modules(name: str) -> list:
    """The last parts of the names of the linears that adapters change."""
    if MODELS[name]["model_type"] == "phi3":
        return ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    if "num_experts_per_tok" in MODELS[name]:
        return ["q_proj", "k_proj", "v_proj", "o_proj"]
    return ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _layer(c: dict, layer: int) -> dict:
    """{name within a layer: shape}"""
    kind = c["model_type"]
    head_dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    q, kv, d, f = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim, c["hidden_size"], c["intermediate_size"]
    shapes = {"self_attn.o_proj.weight": (d, q), "mlp.down_proj.weight": (d, f), "post_attention_layernorm.weight": (d,)}
    if kind == "phi3":
        shapes |= {"self_attn.qkv_proj.weight": (q + 2 * kv, d), "mlp.gate_up_proj.weight": (2 * f, d)}
    else:
        shapes |= {"self_attn.q_proj.weight": (q, d), "self_attn.k_proj.weight": (kv, d), "self_attn.v_proj.weight": (kv, d),
                   "mlp.gate_proj.weight": (f, d), "mlp.up_proj.weight": (f, d)}
    if kind in ("mixtral", "gpt_oss") or kind == "qwen3_moe" and layer not in c["mlp_only_layers"]:
        for name in ("gate_proj", "up_proj", "down_proj"):
            del shapes[f"mlp.{name}.weight"]
        shapes |= _experts(c)
    if kind == "gpt_oss":
        shapes |= {"self_attn.sinks": (c["num_attention_heads"],), "self_attn.o_proj.bias": (d,)}
    if kind in ("qwen2", "gpt_oss"):
        shapes |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    if kind == "olmo2":
        shapes |= {"self_attn.q_norm.weight": (q,), "self_attn.k_norm.weight": (kv,)}
    else:
        shapes["input_layernorm.weight"] = (d,)
    if kind.startswith("gemma"):
        shapes["pre_feedforward_layernorm.weight"] = (d,)
    if kind.startswith("gemma") or kind == "olmo2":
        shapes["post_feedforward_layernorm.weight"] = (d,)
    return shapes


def _experts(c: dict) -> dict:
    d = c["hidden_size"]
    if c["model_type"] == "gpt_oss":  # transposed, gate and up alternating
        n, f = c["num_local_experts"], c["intermediate_size"]
        return {"mlp.router.weight": (n, d), "mlp.router.bias": (n,), "mlp.experts.gate_up_proj": (n, d, 2 * f),
                "mlp.experts.gate_up_proj_bias": (n, 2 * f), "mlp.experts.down_proj": (n, f, d), "mlp.experts.down_proj_bias": (n, d)}
    if c["model_type"] == "mixtral":
        n, f, block, names = c["num_local_experts"], c["intermediate_size"], "block_sparse_moe", ("w1", "w3", "w2")
    else:
        n, f, block, names = c["num_experts"], c["moe_intermediate_size"], "mlp", ("gate_proj", "up_proj", "down_proj")
    shapes = {f"{block}.gate.weight": (n, d)}
    for expert in range(n):
        shapes |= {f"{block}.experts.{expert}.{m}.weight": (d, f) if m == names[2] else (f, d) for m in names}
    return shapes


def tensors(name: str) -> dict:
    """{tensor name: fp32 array}, in the order of the file."""
    c = MODELS[name]
    d = c["hidden_size"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], d)}
    for layer in range(c["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{key}": shape for key, shape in _layer(c, layer).items()}
    shapes["model.norm.weight"] = (d,)
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], d)
    made = {key: _values(name, key, shape) for key, shape in shapes.items()}
    for key in packed_names(name):
        made[key] = mxfp4_decoded(*packed(name, key, shapes[key]))
    return made if c["torch_dtype"] == "float32" else {k: _from_bf16(_to_bf16(v)) for k, v in made.items()}


def _values(name, key, shape):
    stream = f"{name} {key}"
    if "norm" in key:  # Gemma's weights count from 1
        return np.float32(0 if MODELS[name]["model_type"].startswith("gemma") else 1) + recipe.uniform(stream, shape, 1 / 8)
    return recipe.uniform(stream, shape, 1 if key.endswith("sinks") else 1 / 4 if key.endswith("bias") else 1 / 8)


def packed_names(name: str) -> list:
    """The tensors that a folder keeps as MXFP4 blocks and scales."""
    layers = range(MODELS[name]["num_hidden_layers"]) if "quantization_config" in MODELS[name] else ()
    return [f"model.layers.{layer}.mlp.experts.{matrix}" for layer in layers for matrix in ("gate_up_proj", "down_proj")]


def packed(name: str, key: str, shape) -> tuple:
    """(blocks (experts, out, in / 32, 16), scales (experts, out, in / 32)) of a tensor of shape (experts, in, out): any bytes, and scales of
    2^-6 to 2^-4; bytes and scales are the streams "NAME TENSOR_blocks" and "NAME TENSOR_scales"."""
    experts, rows, columns = shape
    grid = (experts, columns, rows // 32)
    blocks = recipe.below(f"{name} {key}_blocks", int(np.prod(grid)) * 16, 256).astype(np.uint8).reshape(*grid, 16)
    return blocks, (recipe.below(f"{name} {key}_scales", int(np.prod(grid)), 3) + 121).astype(np.uint8).reshape(grid)


def mxfp4_decoded(blocks, scales) -> np.ndarray:
    """As OCP's microscaling 1.0 defines the numbers; (experts, in, out)."""
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    values = levels[np.stack([blocks & 15, blocks >> 4], -1)].reshape(*scales.shape, 32) * np.exp2(scales.astype(np.float32) - 127)[..., None]
    return np.ascontiguousarray(values.reshape(*scales.shape[:2], -1).swapaxes(1, 2))


def _to_bf16(values):
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def tokenizer_json() -> dict:
    """Byte-level BPE: three special tokens, the 256 bytes, 200 merges of frequent pairs."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbol = {b: chr(b) for b in printable} | {b: chr(256 + k) for k, b in enumerate(b for b in range(256) if b not in printable)}
    vocab = {"<s>": 0, "</s>": 1, "<unk>": 2} | {symbol[b]: 3 + b for b in range(256)}
    pairs = ["\u0120 " + x for x in "taoiswcbphfmdrelngu"] + [a + " " + b for a in "etaoinshrdlu" for b in "etaoinshrd" if a != b][:170] + [
        "th e", "\u0120t he", "in g", "an d", "\u0120a nd", "er s", "io n", "at ion", "\u0120t o", "\u0120o f", "es t"]
    merges = [pair.split(" ") for pair in dict.fromkeys(pairs)]
    merges = [m for m in merges if m[0] in vocab or any("".join(x) == m[0] for x in merges)]
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    known = [m for m in merges if m[0] in vocab and m[1] in vocab]
    assert len(vocab) <= 512
    special = [{"id": k, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for k, t in enumerate(("<s>", "</s>", "<unk>"))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None, "pre_tokenizer": level,
            "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": known}}


CHAT_TEMPLATE = ("{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}")


def write(name: str, folder, shards: int = 1) -> None:
    """The folder as Hugging Face's tools lay it out; shards > 1 splits the weights and writes the index."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, half = MODELS[name], MODELS[name]["torch_dtype"] == "bfloat16"
    outer, left_out, place, others = NESTED.get(name, ({}, (), "model.", {}))
    if outer:
        config = {**outer, "text_config": {key: value for key, value in config.items() if key not in left_out}}
    data = {key: _to_bf16(v) if half else v for key, v in tensors(name).items()}  # kept alive: the entries point into it
    for key in packed_names(name):
        data |= zip((f"{key}_blocks", f"{key}_scales"), packed(name, key, data.pop(key).shape))
    data = {key.replace("model.", place, 1): v for key, v in data.items()} | {key: _values(name, key, shape) for key, shape in others.items()}
    kind = lambda v: "uint8" if v.dtype == np.uint8 else "bfloat16" if half else "float32"
    entries = {key: safetensors.TensorSpec(dtype=kind(v), shape=v.shape, data_ptr=v.ctypes.data,
                                           data_len=v.nbytes) for key, v in data.items()}
    keys, where = list(entries), {}
    for k in range(shards):
        part = keys[k * len(keys) // shards : (k + 1) * len(keys) // shards]
        file = "model.safetensors" if shards == 1 else f"model-{k + 1:05}-of-{shards:05}.safetensors"
        safetensors.serialize_file({key: entries[key] for key in part}, str(folder / file), {"format": "pt"})
        where |= dict.fromkeys(part, file)
    if shards > 1:
        total = sum(v.nbytes for v in data.values())
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>",
        "add_bos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": 1024, "chat_template": CHAT_TEMPLATE}))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in MODELS:
        sys.exit(f"usage: tiny_models.py {'|'.join(MODELS)} FOLDER [SHARDS]")
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 1)
