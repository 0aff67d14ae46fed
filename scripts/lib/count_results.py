"""Prints "PASSED FAILED SKIPPED" of one result file: GoogleTest's JSON (gtest FILE) or JUnit XML as pytest writes it (pytest FILE)."""

import json
import sys
import xml.etree.ElementTree as ElementTree


def gtest(path):
    tests = [test for suite in json.load(open(path))["testsuites"] for test in suite["testsuite"]]
    skipped = sum(test["result"] != "COMPLETED" for test in tests)
    failed = sum("failures" in test for test in tests)
    return len(tests) - skipped - failed, failed, skipped


def pytest(path):
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    total, failed, errors, skipped = (sum(int(s.get(key, 0)) for s in suites) for key in ("tests", "failures", "errors", "skipped"))
    return total - failed - errors - skipped, failed + errors, skipped


print(*{"gtest": gtest, "pytest": pytest}[sys.argv[1]](sys.argv[2]))
