"""SmolLM2 as others see it: transformers on the GGUF's weights dequantized to fp32, its tokenizer, llama.cpp's programs.

The GGUF names its pre-tokenizer "smollm": single digits are split off, then GPT-2's rule. transformers' converter from GGUF
leaves the digits out, so they are put back here; llama.cpp, which knows the name, must give the same ids (record_smollm2.py
compares them for every text).
"""

import functools
import os
import pathlib
import subprocess

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
import transformers
from tokenizers import pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("SUPERSONIC_CACHE", ROOT / ".cache"))
MODEL = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
LLAMA_CPP = CACHE / "peers" / "build" / "bin"
THREADS = int(os.environ.get("SUPERSONIC_JOBS", os.cpu_count() or 1))

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(THREADS)


@functools.cache
def tokenizer():
    made = transformers.AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return made


def model(dtype=torch.float32):
    """A new copy each time: training changes it."""
    made = transformers.AutoModelForCausalLM.from_pretrained(
        MODEL.parent, gguf_file=MODEL.name, dtype=torch.float32, attn_implementation="eager"
    )
    return made.to(dtype).eval()


def encode(text: str, special: bool) -> list[int]:
    """special: whether the text's own <|im_end|> and the like become special tokens."""
    made = tokenizer()
    made.backend_tokenizer.encode_special_tokens = not special
    ids = made.backend_tokenizer.encode(text, add_special_tokens=False).ids
    made.backend_tokenizer.encode_special_tokens = False
    return ids


def render(messages: list, generation_prompt: bool) -> str:
    return tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)


def encode_chat(messages: list, generation_prompt: bool) -> list[int]:
    """The chat's ids, where special tokens come from the template alone: what a person wrote stays text."""
    marked = [{**m, "content": f"\ue000{k}\ue001"} for k, m in enumerate(messages)]
    ids, pending = [], ""
    specials = tokenizer().added_tokens_decoder
    by_text = {str(token): key for key, token in specials.items()}
    rest = render(marked, generation_prompt)
    while rest:
        special = next((s for s in by_text if rest.startswith(s)), None)
        if special:
            ids += encode(_fill(pending, messages), special=False) + [by_text[special]]
            pending, rest = "", rest[len(special):]
        else:
            pending, rest = pending + rest[0], rest[1:]
    return ids + encode(_fill(pending, messages), special=False)


def _fill(text: str, messages: list) -> str:
    for k, message in enumerate(messages):
        text = text.replace(f"\ue000{k}\ue001", message["content"])
    return text


def llama_cpp(program: str, *arguments: str) -> str:
    command = [LLAMA_CPP / program, *arguments]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def llama_cpp_model(path=MODEL, **options):
    import llama_cpp

    return llama_cpp.Llama(str(path), n_threads=THREADS, n_threads_batch=THREADS, verbose=False, **options)


def llama_cpp_greedy(path, starts: list, count: int, adapter=None) -> list:
    """For each list of ids: (the count ids that llama.cpp continues it with, the margins between its two best logits)."""
    import llama_cpp

    model = llama_cpp_model(path, n_ctx=512, lora_path=str(adapter) if adapter else None)
    results = []
    for ids in starts:
        model.reset()
        made, margins, feed = [], [], list(ids)
        for _ in range(count):
            model.eval(feed)
            row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), (model.n_vocab(),))
            first, second = np.argsort(-row, kind="stable")[:2]
            margins.append(round(float(row[first] - row[second]), 4))
            made.append(int(first))
            feed = [made[-1]]
        results.append((made, margins))
    return results


def versions() -> dict:
    import peft

    return {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__, "llama-cpp-python": "0.3.36"}
