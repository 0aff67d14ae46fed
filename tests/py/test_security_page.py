"""docs/security.md names tests that exist."""

import re

from places import ROOT


def test_every_test_that_the_page_names_exists():
    page = (ROOT / "docs/security.md").read_text()
    named = re.findall(r"`(\w+\.[\w*]+|test_\w+)`", page)
    assert len(named) >= 20
    cpp = "".join(p.read_text() for p in (ROOT / "tests").glob("*/*.cpp"))
    python = "".join(p.read_text() for p in (ROOT / "tests/py").glob("test_*.py"))
    for name in named:
        suite, _, case = name.partition(".")
        found = f"def {name}(" in python if not case else re.search(rf"TEST(_F|_P)?\({suite}, {case.replace('*', '')}", cpp)
        assert found, name
