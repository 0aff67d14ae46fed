"""Adapters of experts go to others and come from them: PEFT saves one that this program merges, loads what this program writes and computes
the same bits, takes the older form as this program does; llama.cpp applies the GGUF adapter. Logits are compared, in fp32."""

import numpy as np
import pytest

import adapters
import recipe
import tiny_models
from test_expert_adapters import ALPHA, IN_GGUF, RANK, SINGLE, adapter_of, config_of, single_modules
from test_export_live import logits, relative

pytestmark = pytest.mark.live


def load(folder):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    return model.eval()


def sequences(name):
    return [recipe.below(f"{name} ids {k}", length, tiny_models.MODELS[name]["vocab_size"]).tolist() for k, length in enumerate((200, 33))]


def theirs(folder, base, name):
    """An adapter that PEFT makes and saves; its model."""
    import peft
    import torch

    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=tiny_models.lora_modules(name), target_parameters=adapters.EXPERT_PARAMETERS,
                             task_type="CAUSAL_LM")
    model = peft.get_peft_model(load(base), config)
    for full, p in model.named_parameters():
        if ".lora_" in full:
            p.data = torch.from_numpy(recipe.uniform(f"live {full}", tuple(p.shape), 2.0**-4))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("name", adapters.MIXTURES)
def test_peft_and_this_program_load_each_others_files(supersonic, tiny_model, tmp_path, name):
    import peft

    base = tiny_model(name)
    model = theirs(tmp_path / "theirs", base, name)
    if name in IN_GGUF:
        supersonic("convert", tmp_path / "theirs", tmp_path / "a.gguf", "--base", base)
    supersonic("convert", tmp_path / ("a.gguf" if name in IN_GGUF else "theirs"), tmp_path / "ours", "--base", base)
    supersonic("merge", base, "--adapter", tmp_path / "theirs", "-o", tmp_path / "merged", "--type", "f32")
    assert set(config_of(tmp_path / "ours")["target_parameters"]) == set(config_of(tmp_path / "theirs")["target_parameters"])
    ours, merged, plain = peft.PeftModel.from_pretrained(load(base), tmp_path / "ours").eval(), load(tmp_path / "merged"), load(base)
    for ids in sequences(name):
        wanted = logits(model, ids)
        assert relative(logits(ours, ids), wanted) == 0
        assert relative(logits(merged, ids), wanted) <= 1e-5
        assert relative(logits(plain, ids), wanted) > 1e-2


@pytest.mark.parametrize("name", SINGLE)
def test_the_older_form_means_what_peft_makes_of_it(supersonic, tiny_model, tmp_path, name):
    import peft

    base = tiny_model(name)
    adapters.write(tmp_path / "single", single_modules(name, False)[0], RANK, ALPHA)
    supersonic("convert", tmp_path / "single", tmp_path / "ours", "--base", base)
    supersonic("merge", base, "--adapter", tmp_path / "single", "-o", tmp_path / "merged", "--type", "f32")
    model, ours, merged = (peft.PeftModel.from_pretrained(load(base), tmp_path / "single").eval(),
                           peft.PeftModel.from_pretrained(load(base), tmp_path / "ours").eval(), load(tmp_path / "merged"))
    for ids in sequences(name):
        wanted = logits(model, ids)
        assert relative(logits(ours, ids), wanted) <= 1e-6  # the same matrices
        assert relative(logits(merged, ids), wanted) <= 1e-5
        assert relative(logits(load(base), ids), wanted) > 1e-2
    # And as PEFT itself saves them again.
    model.save_pretrained(tmp_path / "again")
    supersonic("merge", base, "--adapter", tmp_path / "again", "-o", tmp_path / "merged_again", "--type", "f32")
    again = load(tmp_path / "merged_again")
    assert relative(logits(again, sequences(name)[0]), logits(model, sequences(name)[0])) <= 1e-5
    assert adapter_of(tmp_path / "again").keys() == adapter_of(tmp_path / "ours").keys()


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_llama_cpp_applies_our_adapter(supersonic, tiny_model, tmp_path, name):
    import llama_cpp

    base = tiny_model(name)
    model = theirs(tmp_path / "theirs", base, name)
    supersonic("convert", base, tmp_path / "m.gguf", "--type", "f32")
    supersonic("convert", tmp_path / "theirs", tmp_path / "a.gguf", "--base", tmp_path / "m.gguf")
    options = dict(n_ctx=256, n_batch=256, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
    for adapter in (str(tmp_path / "a.gguf"), None):
        theirs_cpp = llama_cpp.Llama(str(tmp_path / "m.gguf"), lora_path=adapter, **options)
        for ids in sequences(name):
            theirs_cpp.reset()
            theirs_cpp.eval(ids)
            got, wanted = theirs_cpp.scores[: len(ids)].astype(np.float64), logits(model, ids)
            assert relative(got, wanted) <= 2e-3 if adapter else relative(got, wanted) > 1e-2
