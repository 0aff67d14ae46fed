"""The program against what transformers and llama.cpp say of SmolLM2-135M-Instruct (tests/golden/smollm2)."""

import pytest

END_OF_TURN = 2


def test_tokenize_gives_the_ids_of_the_reference_tokenizer(supersonic, model, golden):
    texts = [row for row in golden("smollm2/tokens")[0]["texts"] if "\0" not in row["text"]]  # no NUL in a command's argument
    assert len(texts) >= 190
    for row in texts[::7]:  # all of them are compared in C++
        assert supersonic("tokenize", model, f"--text={row['text']}", json_output=True) == row["ids"], row["text"]


def test_tokenize_parses_special_tokens_where_asked(supersonic, model, golden):
    rows = [row for row in golden("smollm2/tokens")[0]["texts"] if row["ids"] != row["ids_parse_special"]]
    assert len(rows) >= 5
    for row in rows:
        assert supersonic("tokenize", model, "--parse-special", f"--text={row['text']}", json_output=True) == row["ids_parse_special"], row["text"]


def test_greedy_text_in_fp32_equals_transformers(supersonic, model, golden):
    rows = [row for row in golden("smollm2/greedy")[0]["prompts"] if row["prompt"] and END_OF_TURN not in row["continuation"]]
    assert len(rows) >= 5
    for row in rows:
        done = supersonic("run", model, row["prompt"], "--raw", "--temp", "0", "-n", "64", "--compute", "fp32")
        assert done.stdout.rstrip("\n") == row["text"].rstrip("\n"), row["prompt"]


@pytest.mark.parametrize("compute, limit", [("fp32", 1e-4), ("auto", 3e-3)])
def test_perplexity_agrees_with_transformers_in_fp32(supersonic, model, golden, compute, limit):
    wanted = golden("smollm2/llamacpp")[0]["perplexity"]
    text = golden_text(wanted["file"])
    got = supersonic("ppl", model, "-f", text, "--convention", "llamacpp", "--ctx", "512", "--compute", compute, json_output=True)
    assert got["tokens"] == wanted["fp32"]["tokens"]
    assert got["ppl"] == pytest.approx(wanted["fp32"]["ppl"], rel=limit)


def test_perplexity_is_within_0_3_percent_of_llama_cpp(supersonic, model, golden):
    wanted = golden("smollm2/llamacpp")[0]["perplexity"]
    got = supersonic("ppl", model, "-f", golden_text(wanted["file"]), "--convention", "llamacpp", "--ctx", "512", json_output=True)
    assert got["ppl"] == pytest.approx(wanted["ppl"], rel=3e-3)


# bf16 and 8-bit codes with a scale for 32 of them round finely enough; FP8 has three bits of mantissa and no scale.
@pytest.mark.parametrize("kv_type, limit", [("f32", 1e-4), ("q8", 5e-4), ("fp8", 0.02)])
def test_a_cache_costs_little_perplexity(supersonic, model, golden, kv_type, limit):
    wanted = golden("smollm2/llamacpp")[0]["perplexity"]
    text = golden_text(wanted["file"])
    got = supersonic("ppl", model, "-f", text, "--ctx", "512", "--compute", "fp32", "--kv-type", kv_type, json_output=True)
    assert got["ppl"] == pytest.approx(wanted["fp32"]["ppl"], rel=limit)


def golden_text(name):
    from golden import FOLDER

    return FOLDER / name
