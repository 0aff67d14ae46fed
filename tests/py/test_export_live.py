"""Others load what Supersonic writes: transformers a merged folder, peft an adapter, llama.cpp a merged GGUF file and a GGUF
adapter, and compute what the base model with the adapter computes there; llama-quantize chooses the same types.
The adapter is random and non-zero (tests/oracle/adapters.py); SUPERSONIC_TEST_ADAPTER names the folder of another, one that was
trained on a GPU, say, which the tests with SmolLM2 then take."""

import os
import pathlib
import subprocess

import numpy as np
import pytest

import adapters
import tiny_models
from conftest import CACHE

pytestmark = pytest.mark.live

MIXES = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M",
         "Q3_K_S", "Q2_K", "TQ1_0", "TQ2_0", "MXFP4_MOE")
RANK, ALPHA, TOKENS = 16, 32, 32
STOPS = (0, 2)  # <|endoftext|>, <|im_end|>


@pytest.fixture(scope="module")
def smollm2():
    return pytest.importorskip("smollm2")


@pytest.fixture(scope="module")
def lora(smollm2, tmp_path_factory):
    """A PEFT folder for SmolLM2: the adapter that is named, or a random one for all seven linears of its 30 layers."""
    if named := os.environ.get("SUPERSONIC_TEST_ADAPTER"):
        return pathlib.Path(named)
    shapes = {"q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576), "gate_proj": (1536, 576),
              "up_proj": (1536, 576), "down_proj": (576, 1536)}
    modules = {f"model.layers.{i}.{'mlp' if m[0] in 'gud' else 'self_attn'}.{m}": s for i in range(30) for m, s in shapes.items()}
    folder = tmp_path_factory.mktemp("lora")
    adapters.write(folder, adapters.make(modules, RANK, 2**-5, 2**-5), RANK, ALPHA)
    return folder


@pytest.fixture(scope="module")
def merged(supersonic, model, lora, tmp_path_factory):
    """The f32 merges of the Q4_1 file with the adapter: folder and GGUF file; and the GGUF adapter."""
    out = tmp_path_factory.mktemp("merged")
    supersonic("merge", model, "--adapter", lora, "-o", out / "hf", "--type", "f32")
    supersonic("merge", model, "--adapter", lora, "-o", out / "m.gguf", "--type", "f32")
    supersonic("convert", lora, out / "adapter.gguf", "--base", model)
    return out


def logits(model, ids):
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().numpy()


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_transformers_loads_the_merged_folder_with_the_logits_of_peft(smollm2, merged, lora, golden):
    import peft
    import torch
    import transformers

    ours = transformers.AutoModelForCausalLM.from_pretrained(merged / "hf", dtype=torch.float32, attn_implementation="eager").eval()
    theirs = peft.PeftModel.from_pretrained(smollm2.model(), lora).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged / "hf")
    plain = smollm2.model()
    for row in golden("smollm2/logits")[0]["prompts"][:4]:
        wanted = logits(theirs, row["ids"])
        assert relative(logits(ours, row["ids"]), wanted) <= 1e-5, row["name"]
        assert relative(logits(plain, row["ids"]), wanted) > 1e-2  # the adapter does something
    for row in golden("smollm2/tokens")[0]["texts"][:60]:
        assert tokenizer.encode(row["text"], add_special_tokens=False) == row["ids_parse_special"], row["text"]
    for row in golden("smollm2/tokens")[0]["chats"]:
        rendered = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=row["add_generation_prompt"])
        assert rendered == row["rendered"]


@pytest.mark.parametrize("name", [name for name in tiny_models.MODELS if name not in tiny_models.FOLDERS_ONLY])
def test_peft_loads_our_adapter_with_equal_logits(supersonic, tiny_model, tmp_path, golden, name):
    """Theirs -> GGUF -> PEFT folder of ours, which peft then loads; and the merge of it, which transformers loads."""
    import peft
    import torch
    import transformers

    base = tiny_model(name)
    place = "model.language_model." if name in tiny_models.NESTED else "model."
    adapters.write(tmp_path / "theirs", adapters.of_tiny(name, 8), 8, 16, str(base), place)
    supersonic("convert", tmp_path / "theirs", tmp_path / "a.gguf", "--base", base)
    supersonic("convert", tmp_path / "a.gguf", tmp_path / "ours", "--base", base)
    supersonic("merge", base, "--adapter", tmp_path / "ours", "-o", tmp_path / "merged", "--type", "f32")
    supersonic("convert", base, tmp_path / "base.gguf", "--type", "f32")
    supersonic("merge", tmp_path / "base.gguf", "--adapter", tmp_path / "a.gguf", "-o", tmp_path / "merged_gguf", "--type", "f32")
    load = lambda folder: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    theirs, ours = (peft.PeftModel.from_pretrained(load(base), tmp_path / f).eval() for f in ("theirs", "ours"))
    assert ours.peft_config["default"].r == 8 and ours.peft_config["default"].lora_alpha == 16
    for row in golden(f"tiny/{name}")[0]["sequences"]:
        wanted = logits(theirs, row["ids"])
        assert relative(logits(ours, row["ids"]), wanted) == 0
        for folder in ("merged", "merged_gguf"):
            assert relative(logits(load(tmp_path / folder), row["ids"]), wanted) <= 1e-5, folder
        assert relative(logits(load(base), row["ids"]), wanted) > 1e-2


def disagreements(supersonic, smollm2, model, prompts, rows, *options):
    """llama.cpp's margin at each of its choices where our greedy text goes on differently; after each, we continue its text.
    Also how many of its choices were compared: those whose text, encoded again, has the same ids."""
    margins, compared = [], 0
    decode, encode = smollm2.tokenizer().decode, lambda text: smollm2.encode(text, special=False)
    for prompt, (made, margin) in zip(prompts, rows):
        end, at = next((k for k, t in enumerate(made) if t in STOPS), len(made)), 0
        while at < end and encode(prompt + decode(made[:at])) == encode(prompt) + made[:at]:
            done = supersonic("run", model, prompt + decode(made[:at]), "--raw", "--temp", "0", "-n", end - at, "--kv-type", "f16", *options)
            ours = done.stdout.removesuffix("\n")  # the program's own line end
            other = next((k for k in range(at, end) if not ours.startswith(decode(made[at : k + 1]))), end)
            compared += other - at
            if other < end:
                margins.append(margin[other])
            at = other + 1
    return margins, compared


def enough(rows, share):
    """A share of llama.cpp's choices before its texts end; an adapter that was trained ends them sooner."""
    written = sum(next((k for k, t in enumerate(made) if t in STOPS), len(made)) for made, _ in rows)
    assert written >= 250
    return share * written


def test_llama_cpp_continues_the_merged_file_as_we_do(supersonic, smollm2, merged):
    import prompts

    starts = [smollm2.encode(text, special=False) for text in prompts.CONTINUE]
    rows = smollm2.llama_cpp_greedy(merged / "m.gguf", starts, TOKENS)
    margins, compared = disagreements(supersonic, smollm2, merged / "m.gguf", prompts.CONTINUE, rows, "--compute", "fp32")
    assert len(rows) == 20 and compared >= enough(rows, 0.8)
    assert not [m for m in margins if m >= 0.005], margins


def test_llama_cpp_loads_our_adapter_beside_the_4_bit_file(supersonic, smollm2, model, lora, merged):
    """Both round activations to 8 bits, in their own ways, which moves logits by some tenths: nearer choices may differ."""
    import prompts

    starts = [smollm2.encode(text, special=False) for text in prompts.CONTINUE]
    rows = smollm2.llama_cpp_greedy(model, starts, TOKENS, merged / "adapter.gguf")
    plain = smollm2.llama_cpp_greedy(model, starts[:3], TOKENS)
    assert any(a[0] != b[0] for a, b in zip(rows, plain))  # the adapter does something
    margins, compared = disagreements(supersonic, smollm2, model, prompts.CONTINUE, rows, "--adapter", lora)
    print("margins where the texts part:", sorted(margins), "of", compared)
    assert compared >= enough(rows, 0.65) and len(margins) <= 40
    assert not [m for m in margins if m >= 0.5], margins


def test_llama_cpp_reads_our_parts_as_it_reads_the_whole(supersonic, smollm2, model, tmp_path):
    """And we read the parts as llama.cpp's converters name them: the same text."""
    import prompts

    supersonic("convert", model, tmp_path / "m.gguf", "--type", "q4_k", "--shard-size", "30MiB", "--no-verify")
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) > 2
    supersonic("convert", parts[1], tmp_path / "whole.gguf", "--no-verify")
    starts = [smollm2.encode(text, special=False) for text in prompts.CONTINUE[:3]]
    split, whole = (smollm2.llama_cpp_greedy(path, starts, 8) for path in (parts[0], tmp_path / "whole.gguf"))
    assert [ids for ids, _ in split] == [ids for ids, _ in whole]


@pytest.mark.parametrize("name", ["llama3", "mistral", "qwen2"])
@pytest.mark.parametrize("kind", MIXES + ("Q4_K", "BF16", "F16"))
def test_llama_quantize_chooses_the_same_types(supersonic, tiny_model, tmp_path, name, kind):
    import gguf

    supersonic("convert", tiny_model(name), tmp_path / "f32.gguf", "--type", "f32")
    supersonic("convert", tmp_path / "f32.gguf", tmp_path / "ours.gguf", "--type", kind.lower(), "--no-verify")
    tool = CACHE / "peers" / "build" / "bin" / "llama-quantize"
    done = subprocess.run([tool, tmp_path / "f32.gguf", tmp_path / "theirs.gguf", kind, "1"], capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = gguf.GGUFReader(tmp_path / "ours.gguf"), gguf.GGUFReader(tmp_path / "theirs.gguf")
    assert {t.name: t.tensor_type for t in ours.tensors} == {t.name: t.tensor_type for t in theirs.tensors}
    assert ours.fields["general.file_type"].contents() == theirs.fields["general.file_type"].contents()
    if kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4_MOE", "F16", "BF16"):  # the K encoders search; theirs search elsewhere
        other = {t.name: t for t in theirs.tensors}
        for t in ours.tensors:
            if t.tensor_type not in (gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.Q4_K):
                np.testing.assert_array_equal(t.data.view(np.uint8), other[t.name].data.view(np.uint8), err_msg=t.name)


def test_llama_quantize_chooses_the_same_types_for_experts(supersonic, tiny_model, tmp_path):
    supersonic("convert", tiny_model("mixtral"), tmp_path / "f32.gguf", "--type", "f32")
    tool = CACHE / "peers" / "build" / "bin" / "llama-quantize"
    for kind in ("MXFP4_MOE", "TQ2_0", "Q4_K_M"):
        supersonic("convert", tmp_path / "f32.gguf", tmp_path / "ours.gguf", "--type", kind.lower(), "--force", "--no-verify")
        done = subprocess.run([tool, tmp_path / "f32.gguf", tmp_path / "theirs.gguf", kind, "1"], capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stderr[-2000:]
        assert types_of(tmp_path / "ours.gguf") == types_of(tmp_path / "theirs.gguf"), kind


def types_of(path):
    import gguf

    reader = gguf.GGUFReader(path)
    return {t.name: t.tensor_type.name for t in reader.tensors} | {"general.file_type": reader.fields["general.file_type"].contents()}


def test_llama_quantize_chooses_the_same_types_for_thirty_layers(supersonic, model, tmp_path):
    """Rows of 576: the K types fall back; the mixtures' rules over the layers show."""
    supersonic("convert", model, tmp_path / "f32.gguf", "--type", "f32")
    tool = CACHE / "peers" / "build" / "bin" / "llama-quantize"
    for kind in ("Q4_K_M", "Q6_K", "Q4_0", "IQ4_XS", "Q2_K", "Q3_K_M"):
        supersonic("convert", tmp_path / "f32.gguf", tmp_path / "ours.gguf", "--type", kind.lower(), "--force", "--no-verify")
        done = subprocess.run([tool, tmp_path / "f32.gguf", tmp_path / "theirs.gguf", kind, "2"], capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stderr[-2000:]
        assert types_of(tmp_path / "ours.gguf") == types_of(tmp_path / "theirs.gguf"), kind


# What llama.cpp computes otherwise than transformers, whoever made the file.
LLAMA_CPP_DIFFERS = {
    "mistral_window": "its llama architecture has no window",
    "phi": "it leaves Phi-3's window out",
    "gpt_oss_yarn": "its YaRN begins and ends the ramp at whole frequencies",
}


@pytest.mark.parametrize("name", [name for name in tiny_models.MODELS if name not in tiny_models.FOLDERS_ONLY])
def test_llama_cpp_computes_what_transformers_does_from_our_file(supersonic, tiny_model, tmp_path, golden, name):
    """f32 weights; its keys and values in f32 too. At positions before a window ends even the exceptions agree."""
    import llama_cpp

    import recipe

    supersonic("convert", tiny_model(name), tmp_path / "m.gguf", "--type", "f32")
    data, arrays = golden(f"tiny/{name}")
    model = llama_cpp.Llama(str(tmp_path / "m.gguf"), n_ctx=256, n_batch=256, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
    for k, row in enumerate(data["sequences"]):
        model.reset()
        model.eval(row["ids"])
        ours = model.scores[: len(row["ids"])].astype(np.float64)
        seen = slice(0, (1 if name == "gpt_oss_yarn" else 48) if name in LLAMA_CPP_DIFFERS else None)
        difference = recipe.projections(ours[seen]) - arrays[f"{k}/projections"][seen]
        assert np.sqrt((difference**2).mean(-1).sum()) <= 2e-3 * np.linalg.norm(arrays[f"{k}/norm"][seen])
