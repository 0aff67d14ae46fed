"""Folders of Gemma3ForConditionalGeneration: the text part runs, trains and is written, its config nested in text_config and its tensors under
other names; images are not read. Logits and gradients against transformers and PEFT: gemma3_images in test_tiny_models.py."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

import adapters
import recipe
import tiny_models
from conftest import run_program

NAME = "gemma3_images"
IDS = recipe.below(f"{NAME} ids 0", 200, 512).tolist()  # the golden's longer sequence


def logits(tool, folder, out, *options):
    out.mkdir(exist_ok=True)
    done = tool("logits_probe", folder, "fp32", "--out", out, *options, input=json.dumps(IDS) + "\n")
    return np.fromfile(json.loads(done.stdout)["all"], "<f4").reshape(len(IDS), -1)


def changed(tiny_model, tmp_path, config=None, rename=None, tensors=None):
    """A copy of the folder; config(dict) and tensors(dict) change what is in it, rename(name) gives a tensor another name."""
    folder = tmp_path / "changed"
    shutil.copytree(tiny_model(NAME), folder)
    if config:
        settings = json.loads((folder / "config.json").read_text())
        config(settings)
        (folder / "config.json").write_text(json.dumps(settings))
    data = safetensors.numpy.load_file(folder / "model.safetensors")
    if tensors:
        tensors(data)
    safetensors.numpy.save_file({rename(k) if rename else k: v for k, v in data.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("place", ["model.language_model.", "model."])
def test_newer_names_give_the_same_logits(tool, tiny_model, tmp_path, place):
    folder = changed(tiny_model, tmp_path, rename=lambda k: k.replace("language_model.model.", place, 1))
    assert not [k for k in safetensors.numpy.load_file(folder / "model.safetensors") if k.startswith("language_model.")]
    np.testing.assert_array_equal(logits(tool, folder, tmp_path / "a"), logits(tool, tiny_model(NAME), tmp_path / "b"))


def test_an_output_layer_of_its_own_is_found_under_either_name(tool, tiny_model, tmp_path):
    """Logits are linear in it."""
    def head(name):
        def change(data):
            data[name] = 2 * data["language_model.model.embed_tokens.weight"]
        return change

    plain = logits(tool, tiny_model(NAME), tmp_path / "plain")
    for k, (name, rename) in enumerate([("language_model.lm_head.weight", None), ("lm_head.weight", lambda n: n.replace("language_model.model.", "model.language_model."))]):
        (tmp_path / str(k)).mkdir()
        folder = changed(tiny_model, tmp_path / str(k), lambda c: c.update(tie_word_embeddings=False), rename, head(name))
        np.testing.assert_array_equal(logits(tool, folder, tmp_path / f"out{k}"), 2 * plain)


def test_people_are_told_that_images_are_left_out(supersonic, tiny_model):
    done = supersonic("run", tiny_model(NAME), "x", "-n", 1, "--raw")
    assert "text part" in done.stderr and "images" in done.stderr and "Gemma3ForConditionalGeneration" in done.stderr
    shown = supersonic("show", tiny_model(NAME), json_output=True)
    assert shown["supported"] and "text part of a Gemma3ForConditionalGeneration" in shown["config"]["special"]
    assert (shown["config"]["heads"], shown["config"]["kv_heads"]) == (8, 4)  # which the file leaves to its class


def test_a_folder_of_the_text_model_alone_is_written(supersonic, tool, tiny_model, tmp_path):
    made = supersonic("convert", tiny_model(NAME), tmp_path / "text", json_output=True)
    assert made["verified"]["relative_error"] == 0 and made["types"] == {"f32": made["tensors"]}
    got = safetensors.numpy.load_file(tmp_path / "text" / "model.safetensors")
    assert got.keys() == tiny_models.tensors(NAME).keys()
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"] and config["model_type"] == "gemma3_text" and "text_config" not in config
    assert config["eos_token_id"] == 1 and config["torch_dtype"] == "float32" and config["tie_word_embeddings"] is True
    np.testing.assert_array_equal(logits(tool, tmp_path / "text", tmp_path / "a"), logits(tool, tiny_model(NAME), tmp_path / "b"))


def test_adapters_have_the_names_that_peft_has_in_that_class(supersonic, tool, tiny_model, tmp_path):
    """Written so; read so, as older transformers named them, and as those of the text model alone."""
    base, lora, seen = tiny_model(NAME), adapters.of_tiny(NAME, 4), []
    plain = logits(tool, base, tmp_path / "plain")
    for k, place in enumerate(("model.language_model.", "language_model.model.", "model.")):
        adapters.write(tmp_path / f"in{k}", lora, 4, 8, place=place)
        supersonic("convert", tmp_path / f"in{k}", tmp_path / f"out{k}", "--base", base)
        written = safetensors.numpy.load_file(tmp_path / f"out{k}" / "adapter_model.safetensors")
        assert written.keys() == {f"base_model.model.{m.replace('model.', 'model.language_model.', 1)}.lora_{x}.weight" for m in lora for x in "AB"}
        targets = json.loads((tmp_path / f"out{k}" / "adapter_config.json").read_text())["target_modules"]
        assert set(targets) == {m.replace("model.", "model.language_model.", 1) for m in lora}  # not those of the vision part
        seen.append(logits(tool, base, tmp_path / f"l{k}", "--adapter", tmp_path / f"out{k}"))
    assert not np.array_equal(seen[0], plain)
    assert all(np.array_equal(seen[0], x) for x in seen[1:])


REFUSED = {
    "no text_config": (dict(config=lambda c: c.pop("text_config")), ["config.json", "text_config"]),
    "a text_config that is a list": (dict(config=lambda c: c.update(text_config=[1])), ["config.json", "text_config", "object"]),
    "a size that is no number": (dict(config=lambda c: c["text_config"].update(hidden_size="big")), ["hidden_size", "big"]),
    "heads that lie": (dict(config=lambda c: c["text_config"].update(num_attention_heads=4)), ["language_model.model.layers.0.self_attn.q_proj.weight", "(512, 256)", "(256, 256)"]),
    "a vocabulary that lies": (dict(config=lambda c: c["text_config"].pop("vocab_size")), ["language_model.model.embed_tokens.weight", "262208"]),
    "a missing tensor": (dict(tensors=lambda t: t.pop("language_model.model.layers.1.mlp.up_proj.weight")), ["lacks", "language_model.model.layers.1.mlp.up_proj.weight"]),
    "quantized text": (dict(config=lambda c: c["text_config"].update(quantization_config={"quant_method": "awq"})), ["quantized with awq"]),
    "bidirectional attention": (dict(config=lambda c: c["text_config"].update(use_bidirectional_attention=True)), ["use_bidirectional_attention"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(tiny_model, tmp_path, case):
    change, words = REFUSED[case]
    folder = changed(tiny_model, tmp_path, **change)
    done = run_program("supersonic", "run", folder, "x", "-n", 1, check=False)
    assert done.returncode == 5, done.stderr
    for word in (str(folder), *words):
        assert word in done.stderr, (word, done.stderr)


@pytest.mark.live
def test_a_folder_that_transformers_wrote_gives_its_logits(tool, tmp_path):
    import torch
    import transformers

    torch.manual_seed(1)
    outer = tiny_models.NESTED[NAME][0]
    text = {k: v for k, v in tiny_models.MODELS[NAME].items() if k not in ("architectures", "model_type", "torch_dtype")}
    config = transformers.Gemma3Config(text_config=text | {"initializer_range": 0.1}, vision_config=outer["vision_config"], mm_tokens_per_image=4, image_token_index=602)
    model = transformers.Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        wanted = model.double()(torch.tensor([IDS])).logits[0].numpy()
    ours = logits(tool, tmp_path / "theirs", tmp_path / "out")
    assert np.linalg.norm(ours - wanted) <= 1e-5 * np.linalg.norm(wanted)
