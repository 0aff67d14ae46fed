"""The shapes that the GPU's benchmarks run on, as Hugging Face's configuration of a Llama: the same as bench/random_model.cpp writes."""

SHAPES = {
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
           "vocab_size": 128256, "tie_word_embeddings": True, "rope_theta": 500000.0},
    "8b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
           "vocab_size": 128256, "tie_word_embeddings": False, "rope_theta": 500000.0},
    "13b": {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40, "intermediate_size": 13824,
            "vocab_size": 32000, "tie_word_embeddings": False, "rope_theta": 10000.0},
}


def llama_config(shape):
    """The configuration of transformers."""
    import transformers

    values = dict(SHAPES[shape])
    theta = values.pop("rope_theta")
    return transformers.LlamaConfig(**values, rope_theta=theta, max_position_embeddings=131072, rms_norm_eps=1e-5, use_cache=True)
