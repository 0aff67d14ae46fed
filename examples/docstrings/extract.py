#!/usr/bin/env python3
"""Makes a fine-tuning task from a source tree: a function's code -> the first line of its docstring, as chat JSONL.

    extract.py                      the standard library of /usr/bin/python3 -> train.jsonl, valid.jsonl
    extract.py --source my/project --out data/

Needs Python alone. Whole top-level modules are held out; a pair whose code occurred before is dropped, and so is a training
pair that shares its function's name and answer with a held-out one: nothing of valid.jsonl is seen in training.
"""
import argparse
import ast
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

INSTRUCTION = "Write the first line of this function's docstring.\n\n"
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "__pycache__", "ensurepip", "pydoc_data", "_bundled"}


def standard_library():
    """The folder of /usr/bin/python3's library, so that everybody trains on the same text; this interpreter's otherwise."""
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    return pathlib.Path(subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def modules(root):
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not SKIPPED.intersection(inside.parts) and not path.is_symlink():
            yield inside, path


def without_docstring(lines, function):
    """The function's lines from `def` on, without its docstring and common indentation."""
    doc = function.body[0]
    kept = lines[function.lineno - 1 : doc.lineno - 1]
    head = lines[doc.lineno - 1][: doc.col_offset]
    if head.strip():  # def f(): "doc"
        kept.append(head.rstrip())
    kept += lines[doc.end_lineno : function.end_lineno]
    margin = re.match(r"\s*", kept[0]).group()
    text = "\n".join(line[len(margin) :] if line.startswith(margin) else line.lstrip() for line in kept)
    return re.sub(r"\n\s*\n+", "\n", text).rstrip()


def first_line(docstring):
    line = docstring.strip().split("\n\n")[0].split("\n")[0].strip()
    return re.sub(r"\s+", " ", line)


def pairs_of(path, limits):
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or not docstring.strip() or len(node.body) < 2:
            continue
        answer, code = first_line(docstring), cut(without_docstring(lines, node), limits.max_code)
        if limits.min_answer <= len(answer) <= limits.max_answer and len(code) >= limits.min_code:
            yield node.name, code, answer


def cut(code, size):
    """The code's first whole lines that fit; what follows becomes an ellipsis."""
    if len(code) <= size:
        return code
    kept = code[:size].rsplit("\n", 1)[0]
    return kept + "\n    ..."


def normal(text):
    return re.sub(r"\s+", " ", text).strip().lower()


def held_out(module, seed, share):
    """Decides by the module's name alone: adding files does not move the others."""
    digest = hashlib.sha256(f"{seed}:{module}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def package(inside):
    """Modules of one package stay on one side: they share code. Top-level modules stand alone."""
    return inside.parts[0].removesuffix(".py")


def extract(root, limits):
    split = {"train": [], "valid": []}
    seen_code, held_answers = set(), set()
    counts = {"modules": 0, "functions": 0, "duplicates": 0}
    found = list(modules(root))
    # held-out modules first: of two copies the training one is dropped
    found.sort(key=lambda m: not held_out(package(m[0]), limits.seed, limits.held_out))
    for inside, path in found:
        part = "valid" if held_out(package(inside), limits.seed, limits.held_out) else "train"
        counts["modules"] += 1
        for name, code, answer in pairs_of(path, limits):
            counts["functions"] += 1
            code_key, answer_key = normal(code), (name, normal(answer))
            if code_key in seen_code or (part == "train" and answer_key in held_answers):
                counts["duplicates"] += 1
                continue
            seen_code.add(code_key)
            if part == "valid":
                held_answers.add(answer_key)
            split[part].append((f"{inside}:{name}", code, answer))
    return split, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=pathlib.Path, help="source tree (default: the standard library of /usr/bin/python3)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."), help="folder for train.jsonl and valid.jsonl")
    parser.add_argument("--held-out", type=float, default=0.08, help="share of modules held out")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--max-code", type=int, default=400, help="characters of code kept of a function")
    parser.add_argument("--min-code", type=int, default=20)
    parser.add_argument("--min-answer", type=int, default=4)
    parser.add_argument("--max-answer", type=int, default=200)
    limits = parser.parse_args()
    root = limits.source or standard_library()
    split, counts = extract(root, limits)
    limits.out.mkdir(parents=True, exist_ok=True)
    for part, rows in split.items():
        with open(limits.out / f"{part}.jsonl", "w", encoding="utf-8") as file:
            for _, code, answer in rows:
                messages = [{"role": "user", "content": INSTRUCTION + code}, {"role": "assistant", "content": answer}]
                file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    print(f"{root}: {counts['modules']} modules, {counts['functions']} documented functions, {counts['duplicates']} duplicates dropped")
    for part, rows in split.items():
        print(f"{part}.jsonl: {len(rows)} pairs, {sum(len(c) + len(a) for _, c, a in rows)} characters")


if __name__ == "__main__":
    main()
