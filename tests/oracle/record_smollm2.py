"""Records what transformers, PEFT and llama.cpp make of SmolLM2-135M-Instruct (the Q4_1 GGUF of scripts/setup), in
tests/golden/smollm2. Parts: tokens, logits, greedy, lora, steps, llamacpp. With --check it computes all again and compares.
Needs scripts/peers. Schemas: tests/golden/README.md.
"""

import re

import numpy as np
import torch

import golden
import prompts
import recipe
import smollm2

LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tokens():
    other = smollm2.llama_cpp_model(vocab_only=True)
    texts, disagree = [], []
    for text in prompts.texts():
        plain, special = smollm2.encode(text, special=False), smollm2.encode(text, special=True)
        # add_special_tokens changes nothing here: the model's metadata asks for no BOS.
        assert smollm2.tokenizer()(text, add_special_tokens=True).input_ids == special
        if "\0" not in text:  # the binding passes C strings on
            for wanted, flag in ((plain, False), (special, True)):
                if other.tokenize(text.encode(), add_bos=False, special=flag) != wanted:
                    disagree.append({"text": text, "special": flag, "llamacpp": other.tokenize(text.encode(), add_bos=False, special=flag)})
        texts.append({"text": text, "ids": plain, "ids_parse_special": special})
    chats = []
    for messages in prompts.CHATS:
        for generation_prompt in (False, True):
            rendered = smollm2.render(messages, generation_prompt)
            chats.append({
                "messages": messages, "add_generation_prompt": generation_prompt, "rendered": rendered,
                "ids": smollm2.encode_chat(messages, generation_prompt), "ids_parse_special": smollm2.encode(rendered, special=True),
            })
    return {"versions": smollm2.versions(), "texts": texts, "chats": chats, "llamacpp_differs": disagree}, {}


def logit_prompts():
    chosen = [("raw: " + text[:20], smollm2.encode(text, special=False)) for text in prompts.CONTINUE[:4]]
    chosen += [("chat " + str(k), smollm2.encode_chat(prompts.CHATS[k], True)) for k in (1, 2, 8)]
    text = (golden.FOLDER / "text" / "opticks.txt").read_text()
    chosen += [("text 150", smollm2.encode(text[3000:4000], special=False)[:150]), ("text 128", smollm2.encode(text[9000:10000], special=False)[:128])]
    return chosen + [("one token", smollm2.encode("Hello", special=False))]


@torch.no_grad()
def logits():
    exact, half = smollm2.model(), smollm2.model(torch.bfloat16)
    rows, arrays = [], {}
    for index, (name, ids) in enumerate(logit_prompts()):
        wanted = exact(torch.tensor([ids])).logits[0].double().numpy()
        rounded = half(torch.tensor([ids])).logits[0].double().numpy()
        order = np.argsort(-wanted, axis=1, kind="stable")[:, :16]
        last = np.argsort(-wanted[-1], kind="stable")[:64]
        rows.append({
            "name": name, "ids": ids,
            "bf16_error": float(np.linalg.norm(rounded - wanted) / np.linalg.norm(wanted)),
            "bf16_error_last": float(np.linalg.norm((rounded - wanted)[-1]) / np.linalg.norm(wanted[-1])),
        })
        arrays |= {
            f"{index}/norm": ("f64", np.linalg.norm(wanted, axis=1)),
            f"{index}/projections": ("f32", recipe.projections(wanted)),
            f"{index}/bf16_error": ("f32", np.linalg.norm(rounded - wanted, axis=1) / np.linalg.norm(wanted, axis=1)),
            f"{index}/logsumexp": ("f32", torch.logsumexp(torch.from_numpy(wanted), 1).numpy()),
            f"{index}/top_ids": ("i32", order),
            f"{index}/top_logits": ("f32", np.take_along_axis(wanted, order, 1)),
            f"{index}/last_top_ids": ("i32", last),
            f"{index}/last_top_logits": ("f32", wanted[-1][last]),
        }
        if name == "chat 2":
            arrays[f"{index}/last_logits"] = ("f32", wanted[-1])
    tolerance = {"bf16_error": 0.25, "bf16_error_last": 0.5, "top_ids": None, "last_top_ids": None}
    return {"versions": smollm2.versions(), "prompts": rows}, arrays, tolerance


@torch.no_grad()
def greedy():
    model, rows = smollm2.model(), []
    starts = [(text, smollm2.encode(text, special=False)) for text in prompts.CLEAR]
    starts += [(None, smollm2.encode_chat([prompts.user(text)], True)) for text in prompts.QUESTIONS]
    for text, ids in starts:
        made, margins, past, feed = [], [], None, ids
        while len(made) < 64:
            out = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
            past, top = out.past_key_values, torch.topk(out.logits[0, -1], 2)
            margins.append(float(top.values[0] - top.values[1]))
            made.append(int(top.indices[0]))
            feed = made[-1:]
        # Were two tokens all but equal, another order of summation might choose the other one: no fair test.
        assert min(margins) > 0.01, (text, min(margins))
        rows.append({"prompt": text, "ids": ids, "continuation": made, "text": smollm2.tokenizer().decode(made), "min_margin": min(margins)})
    return {"versions": smollm2.versions(), "prompts": rows}, {}, {"min_margin": 0.02}


def lora_model():
    import peft

    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LORA_MODULES, task_type="CAUSAL_LM")
    model = peft.get_peft_model(smollm2.model(), config)
    for name, parameter in lora_parameters(model):
        scale = 2.0**-5 if name.endswith(".A") else 2.0**-6
        parameter.data = torch.from_numpy(recipe.uniform(f"lora {name}", parameter.shape, scale))
    return model


def lora_parameters(model):
    """("layers.3.q_proj.A", parameter): A (16, in), B (out, 16)."""
    for name, parameter in model.named_parameters():
        found = re.search(r"layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])\.", name)
        if found:
            yield "layers.{}.{}.{}".format(*found.groups()), parameter


def lesson(index: int):
    """ids and labels (-100 where nothing is learned: everything but the answer and its end) of one conversation."""
    question, answer = prompts.LESSONS[index % len(prompts.LESSONS)]
    ids = smollm2.encode_chat([prompts.user(question), prompts.assistant(answer)], False)
    start = len(smollm2.encode_chat([prompts.user(question)], True))
    end = len(ids) - 1  # the line feed after <|im_end|> belongs to the template
    return {"ids": ids, "labels": [-100] * start + ids[start:end] + [-100] * (len(ids) - end)}


def packed_loss(model, sequences):
    """Mean over all label tokens of sequences that do not see each other, as packing with separate attention gives it."""
    total, count = 0.0, 0
    for sequence in sequences:
        out = model(torch.tensor([sequence["ids"]])).logits[0, :-1]
        labels = torch.tensor(sequence["labels"][1:])
        total = total + torch.nn.functional.cross_entropy(out, labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
    return total / count


def lora():
    # In float64: PEFT's own fp32 gradients are up to 9e-5 away from these, about what they are here to judge.
    model = lora_model().double()
    batch = [lesson(k) for k in (0, 1, 3)]
    with torch.no_grad():
        each = [float(packed_loss(model, [sequence])) for sequence in batch]
        with model.disable_adapter():
            base = float(packed_loss(model, batch))
    loss = packed_loss(model, batch)
    loss.backward()
    arrays, names = {}, []
    norms, sums = [], []
    for name, parameter in lora_parameters(model):
        gradient = parameter.grad.double().numpy()
        names.append(name)
        norms.append(np.linalg.norm(gradient))
        sums.append(recipe.projections(gradient.reshape(-1)))
        if name in ("layers.0.q_proj.A", "layers.0.k_proj.B", "layers.17.gate_proj.B", "layers.29.down_proj.A"):
            arrays[f"gradient/{name}"] = ("f32", gradient)
    arrays |= {"norm": ("f64", np.array(norms)), "projections": ("f32", np.array(sums))}
    data = {
        "versions": smollm2.versions(), "rank": 16, "alpha": 32, "scale_A": 2.0**-5, "scale_B": 2.0**-6, "sequences": batch,
        "loss": float(loss.detach()), "loss_each": each, "loss_without_adapter": base, "names": names,
    }
    return data, arrays, {"projections": 1e-4}


def steps():
    """Twenty AdamW steps on five batches of three conversations, in turn."""
    model = lora_model()
    batches = [[lesson(3 * b + k) for k in range(3)] for b in range(5)]
    parameters = dict(lora_parameters(model))
    start = {name: p.detach().clone() for name, p in parameters.items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for step in range(20):
        loss = packed_loss(model, batches[step % 5])
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        final = float(packed_loss(model, batches[0]))
    change = {name: (p.detach() - start[name]).double().numpy() for name, p in parameters.items()}
    arrays = {
        "change_norm": ("f64", np.array([np.linalg.norm(c) for c in change.values()])),
        "change_projections": ("f32", np.array([recipe.projections(c.reshape(-1)) for c in change.values()])),
    }
    data = {
        "versions": smollm2.versions(), "rank": 16, "alpha": 32, "scale_A": 2.0**-5, "scale_B": 2.0**-6,
        "optimizer": {"lr": 5e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "clip": None},
        "batches": batches, "losses": losses, "loss_after": final, "names": list(change),
    }
    return data, arrays, {"losses": 1e-4, "loss_after": 1e-4, "change_norm": 1e-2, "change_projections": 5e-2}


@torch.no_grad()
def perplexity_fp32(ids: list[int], context: int = 512) -> dict:
    """llama.cpp's convention in fp32: whole chunks, each on its own; the second half of each is scored."""
    model, total, count = smollm2.model(), 0.0, 0
    for start in range(0, len(ids) - context + 1, context):
        chunk = torch.tensor([ids[start : start + context]])
        out = model(chunk).logits[0, context // 2 : -1]
        total += float(torch.nn.functional.cross_entropy(out, chunk[0, context // 2 + 1 :], reduction="sum"))
        count += context - context // 2 - 1
    return {"nll": total / count, "ppl": float(np.exp(total / count)), "tokens": count}


def llamacpp():
    path = golden.FOLDER / "text" / "opticks.txt"
    out = smollm2.llama_cpp("llama-perplexity", "-m", smollm2.MODEL, "-f", path, "-c", "512", "-b", "512", "-t", str(smollm2.THREADS), "--no-warmup")
    chunks = [float(x) for x in re.findall(r"\[\d+\]([\d.]+),", out)]
    final = re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", out)
    ids = smollm2.encode(path.read_text(), special=False)
    continued = llama_cpp_greedy()
    data = {
        "versions": smollm2.versions(),
        "perplexity": {
            "file": "text/opticks.txt", "context": 512, "ppl": float(final[1]), "stderr": float(final[2]), "running_ppl": chunks,
            "text_tokens": len(ids), "fp32": perplexity_fp32(ids),
        },
        "greedy": continued,
    }
    return data, {}, {"ppl": 2e-3, "stderr": 2e-2, "running_ppl": 5e-3, "nll": 1e-4}


def llama_cpp_greedy():
    starts = [smollm2.encode(text, special=False) for text in prompts.CONTINUE]
    rows = []
    for text, ids, (made, margins) in zip(prompts.CONTINUE, starts, smollm2.llama_cpp_greedy(smollm2.MODEL, starts, 32)):
        rows.append({"prompt": text, "ids": ids, "continuation": made, "text": smollm2.tokenizer().decode(made), "margins": margins})
    return rows


if __name__ == "__main__":
    golden.run("smollm2", {"tokens": tokens, "logits": logits, "greedy": greedy, "lora": lora, "steps": steps, "llamacpp": llamacpp})
