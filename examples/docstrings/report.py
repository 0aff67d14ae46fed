"""Prints what the quickstart reached, from the files in its folder:
    python3 report.py OUT [--seconds N]
Reads train.json (one object: eval_before.loss, eval_after.loss, tokens, tokens_per_second, peak_bytes), prompts.jsonl,
references.jsonl, answers-before.jsonl and answers-after.jsonl (one object with "text" a line).
"""

import argparse
import json
import pathlib

import rouge


def rows(path: pathlib.Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, help="how long everything took")
    arguments = parser.parse_args()
    out = arguments.out
    train = json.loads((out / "train.json").read_text())
    references = rows(out / "references.jsonl")
    answers = {when: [row["text"].strip() for row in rows(out / f"answers-{when}.jsonl")] for when in ("before", "after")}
    scores = {when: rouge.mean_rouge_l(references, texts) for when, texts in answers.items()}
    before, after = train["eval_before"]["loss"], train["eval_after"]["loss"]

    prompts = rows(out / "prompts.jsonl")
    for index in range(min(3, len(prompts))):
        question = prompts[index]["messages"][-1]["content"].strip().splitlines()
        print("\n" + "\n".join("  | " + line for line in question[:12]) + ("\n  | …" if len(question) > 12 else ""))
        print(f"  written by a person  {references[index]}")
        for when in ("before", "after"):
            print(f"  model {when:<14} {' '.join(answers[when][index].split())}")
    print(f"\nheld-out loss     {before:.3f} -> {after:.3f}   ({100 * (after / before - 1):+.0f} %)")
    print(f"held-out ROUGE-L  {scores['before']:.3f} -> {scores['after']:.3f}   ({len(references)} functions of modules that training never saw)")
    print(f"training          {train['tokens']:,} tokens, {train['tokens_per_second']:.0f} tokens/s, peak memory {train['peak_bytes'] / 2**30:.2f} GiB")
    if arguments.seconds:
        print(f"all of it         {arguments.seconds // 60} min {arguments.seconds % 60} s, set-up and build included")
    summary = {"loss_before": before, "loss_after": after, "rouge_l_before": scores["before"], "rouge_l_after": scores["after"],
               "tokens_per_second": train["tokens_per_second"], "peak_bytes": train["peak_bytes"], "seconds": arguments.seconds}
    (out / "summary.json").write_text(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
