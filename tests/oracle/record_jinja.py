"""Records tests/golden/text/jinja.json: small templates over small conversations, rendered by jinja2 3.1.6."""
import json
import pathlib
import sys

import jinja2

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from chat_cases import CONVERSATIONS, FEATURES, render  # noqa: E402

CHATS = ["chatml", "llama 2 style", "llama 3 style", "generation", "generation in macro", "loops", "tojson"]


def main():
    cases = []
    for name, source in FEATURES.items():
        for case in CONVERSATIONS if name in CHATS else ["system"]:
            data = CONVERSATIONS[case]
            want = render(source.replace("{{ strftime_now('%Y-%m-%d %d %B') }}", ""), data, 0)
            entry = {"name": f"{name} / {case}", "source": name, "input": json.dumps(data, ensure_ascii=False)}
            if "error" in want:
                entry["refused"] = True
            else:
                entry["text"] = want["text"]
                bytes_of = lambda n: len(want["text"][:n].encode())
                entry["generation"] = [[bytes_of(a), bytes_of(b)] for a, b in want["generation"] if a < b]
            cases.append(entry)
    sources = {n: s.replace("{{ strftime_now('%Y-%m-%d %d %B') }}", "") for n, s in FEATURES.items()}
    out = pathlib.Path(__file__).resolve().parents[1] / "golden/text/jinja.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"jinja2": jinja2.__version__, "templates": sources, "cases": cases}, ensure_ascii=False, indent=1)
    out.write_text(text + "\n", encoding="utf-8")
    print(f"{out}: {len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
