"""Records what transformers makes of varied config.json texts, for tests/io/hf_config_golden_test.cpp.

Run with transformers 5.23.0 (no torch needed): python tests/oracle/record_io_configs.py
"""

import json
import pathlib
import tempfile

import transformers
from transformers import AutoConfig

SIZES = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=300)
LLAMA = SIZES | dict(architectures=["LlamaForCausalLM"], model_type="llama")
QWEN2 = SIZES | dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", num_key_value_heads=2)
MISTRAL = SIZES | dict(architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=2)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=1024)
GEMMA3 = SIZES | dict(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", num_key_value_heads=2, num_hidden_layers=7, head_dim=32)
GEMMA2 = SIZES | dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2", num_key_value_heads=2)
PHI3 = SIZES | dict(architectures=["Phi3ForCausalLM"], model_type="phi3", pad_token_id=0)
LONG = dict(short_factor=[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5], long_factor=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
QWEN3 = SIZES | dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_key_value_heads=2)
MOE = SIZES | dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_key_value_heads=2, num_experts=4, num_experts_per_tok=2)
GPT_OSS = SIZES | dict(architectures=["GptOssForCausalLM"], model_type="gpt_oss", num_key_value_heads=2, num_local_experts=4, intermediate_size=64)
SMOLLM3 = SIZES | dict(architectures=["SmolLM3ForCausalLM"], model_type="smollm3", num_key_value_heads=2, pad_token_id=0)
CASES = {
    "llama defaults": LLAMA,
    "llama old rope": LLAMA | dict(rope_theta=5e5, rope_scaling=dict(rope_type="llama3", **LLAMA3)),
    "llama older rope": LLAMA | dict(rope_theta=5e5, rope_scaling=dict(type="linear", factor=2.0)),
    "llama new rope": LLAMA | dict(rope_parameters=dict(rope_type="llama3", rope_theta=5e5, **LLAMA3)),
    "llama dynamic": LLAMA | dict(rope_scaling=dict(rope_type="dynamic", factor=4.0), max_position_embeddings=4096),
    "llama head_dim, bias, ids": LLAMA
    | dict(head_dim=32, attention_bias=True, bos_token_id=1, eos_token_id=[2, 3], tie_word_embeddings=True),
    "qwen2 plain": QWEN2 | dict(sliding_window=32, max_window_layers=1),
    "qwen2 sliding": QWEN2 | dict(use_sliding_window=True, sliding_window=32, max_window_layers=1),
    "qwen2 sliding after all layers": QWEN2 | dict(use_sliding_window=True, sliding_window=32),
    "qwen2 yarn": QWEN2 | dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e6, factor=4.0)),
    "qwen2 defaults": QWEN2,
    "mistral defaults": MISTRAL | dict(sliding_window=None),
    "mistral without the key": MISTRAL,
    "mistral window": MISTRAL | dict(sliding_window=4096, rms_norm_eps=1e-5),
    "qwen3 defaults": QWEN3,
    "qwen3 sliding": QWEN3 | dict(use_sliding_window=True, sliding_window=32, max_window_layers=1),
    "gemma3 defaults": GEMMA3,
    "gemma3 as on the hub": GEMMA3 | dict(sliding_window_pattern=3, sliding_window=64, rope_theta=1e6, rope_local_base_freq=1e4,
                                          rope_scaling=dict(rope_type="linear", factor=8.0)),
    "gemma3 new rope": GEMMA3 | dict(rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=5e5),
                                                          sliding_attention=dict(rope_type="default", rope_theta=2e4))),
    # As the hub has the 4B model that reads images.
    "gemma3 with images": dict(
        architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", eos_token_id=[1, 106], image_token_index=262144,
        mm_tokens_per_image=256, torch_dtype="bfloat16", vision_config=dict(hidden_size=1152, model_type="siglip_vision_model"),
        text_config=dict(hidden_size=2560, intermediate_size=10240, model_type="gemma3_text", num_hidden_layers=34, sliding_window=1024,
                         rope_scaling=dict(factor=8.0, rope_type="linear"))),
    "gemma2 defaults": GEMMA2,
    "gemma2 without caps": GEMMA2 | dict(attn_logit_softcapping=None, final_logit_softcapping=None, sliding_window=16),
    "phi3 defaults": PHI3,
    "phi3 longrope": PHI3 | dict(max_position_embeddings=4096, original_max_position_embeddings=512, rope_scaling=dict(type="longrope", **LONG)),
    "phi3 su": PHI3 | dict(max_position_embeddings=4096, original_max_position_embeddings=512, rope_scaling=dict(type="su", original_max_position_embeddings=512, **LONG)),
    "smollm3 defaults": SMOLLM3,
    "smollm3 layers": SMOLLM3 | dict(no_rope_layers=[1, 0, 1]),
    "granite": SIZES | dict(architectures=["GraniteForCausalLM"], model_type="granite"),
    "olmo2 defaults": SIZES | dict(architectures=["Olmo2ForCausalLM"], model_type="olmo2"),
    "mixtral defaults": SIZES | dict(architectures=["MixtralForCausalLM"], model_type="mixtral", num_key_value_heads=2),
    "qwen3 moe defaults": MOE,
    "qwen3 moe sparse": MOE | dict(decoder_sparse_step=2, mlp_only_layers=[1], norm_topk_prob=True, use_sliding_window=True, sliding_window=8),
    "gpt-oss defaults": GPT_OSS,
    "gpt-oss plain": GPT_OSS | dict(rope_scaling=dict(rope_type="default"), sliding_window=16),
}


def normalized(whole):
    config = whole.get_text_config()
    layers = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    slides = [t == "sliding_attention" for t in types] if types else [bool(window)] * layers
    rope = config.rope_parameters
    local = rope["sliding_attention"]["rope_theta"] if "sliding_attention" in rope else 0
    rope = rope.get("full_attention", rope)
    eos = whole.eos_token_id
    return dict(
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        max_position=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        tied=whole.tie_word_embeddings,
        theta=rope["rope_theta"],
        rope=rope["rope_type"],
        factor=rope.get("factor") or (config.max_position_embeddings / rope["original_max_position_embeddings"] if rope["rope_type"] == "longrope" else 1.0),
        local_theta=local,
        rotates=[bool(r) for r in getattr(config, "no_rope_layers", [])][:layers],
        caps=[getattr(config, key, None) or 0 for key in ("attn_logit_softcapping", "final_logit_softcapping")],
        experts=[getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0, getattr(config, "num_experts_per_tok", None) or 0],
        original=rope.get("original_max_position_embeddings") or 0,
        window=window if window and any(slides) else 0,
        slides=[bool(window) and s for s in slides],
        eos=eos if isinstance(eos, list) else [] if eos is None else [eos],
    )


def main():
    cases = []
    for name, config in CASES.items():
        # Ids that transformers would fill in are stated, so that only what the file says is compared.
        config = dict(bos_token_id=None, eos_token_id=None) | config
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
            cases.append(dict(name=name, config=config, expected=normalized(AutoConfig.from_pretrained(folder))))
    out = pathlib.Path(__file__).resolve().parents[1] / "golden/io/hf_configs.json"
    out.write_text(json.dumps(dict(transformers=transformers.__version__, cases=cases), indent=1) + "\n")


main()
