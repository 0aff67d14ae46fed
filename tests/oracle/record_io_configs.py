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
}


def normalized(config):
    layers = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    slides = [t == "sliding_attention" for t in types] if types else [bool(window)] * layers
    rope = config.rope_parameters
    eos = config.eos_token_id
    return dict(
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        max_position=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
        theta=rope["rope_theta"],
        rope=rope["rope_type"],
        factor=rope.get("factor", 1.0),
        original=rope.get("original_max_position_embeddings") or 0,
        window=window if window and any(slides) else 0,
        slides=slides,
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
