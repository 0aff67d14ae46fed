"""Counts tests in JUnit XML, as GoogleTest and pytest write it.

    count_results.py FILE               "PASSED FAILED SKIPPED"
    count_results.py --reasons FILE …   a line for each reason of a skip, the commonest first
"""

import collections
import sys
import xml.etree.ElementTree as ElementTree


def cases(path):
    return list(ElementTree.parse(path).getroot().iter("testcase"))


def state(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def reason(case):
    """What the test said; GoogleTest writes the place in a line before it, pytest's expected failures say so in their type."""
    skip = case.find("skipped")
    lines = [line for line in skip.get("message", "").splitlines() if line.strip()]
    if len(lines) > 1 and ".cpp:" in lines[0]:
        lines = lines[1:]
    text = lines[0].strip() if lines else "no reason given"
    return f"expected failure: {text}" if "xfail" in skip.get("type", "") else text


def main(arguments):
    if arguments[:1] == ["--reasons"]:
        counts = collections.Counter(reason(case) for path in arguments[1:] for case in cases(path) if state(case) == "skipped")
        for text, number in counts.most_common():
            print(f"{number:6} skipped: {text}")
    else:
        counts = collections.Counter(state(case) for case in cases(arguments[0]))
        print(counts["passed"], counts["failed"], counts["skipped"])


main(sys.argv[1:])
