"""scripts/lib/count_results.py on what pytest itself writes, and on GoogleTest's form of a skip."""

import subprocess
import sys

from places import ROOT

PROGRAM = ROOT / "scripts" / "lib" / "count_results.py"
TESTS = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.fixture
def broken(): raise RuntimeError
def test_breaks(broken): pass
@pytest.mark.parametrize("n", range(3))
def test_skips(n): pytest.skip("needs a card")
def test_skips_too(): pytest.skip("needs a disk")
def test_is_known_to_fail(): pytest.xfail("not mended yet")
"""
GTEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="3" failures="1"><testsuite name="A" tests="3" failures="1" skipped="1">
<testcase name="Passes" result="completed"/>
<testcase name="Fails" result="completed"><failure message="no&#x0A;no">no</failure><failure message="nor that"/></testcase>
<testcase name="Skips" result="skipped"><skipped message="/a/b_test.cpp:17&#x0A;needs a card">needs a card</skipped></testcase>
</testsuite></testsuites>
"""


def count(*arguments):
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=True).stdout


def test_counts_and_reasons(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    ours, theirs = tmp_path / "pytest.xml", tmp_path / "gtest.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={ours}", tmp_path], capture_output=True)
    theirs.write_text(GTEST)
    assert count(ours) == "1 2 5\n"
    assert count(theirs) == "1 1 1\n"
    assert [line.split(None, 1) for line in count("--reasons", ours, theirs).splitlines()] == [
        ["4", "skipped: needs a card"], ["1", "skipped: needs a disk"], ["1", "skipped: expected failure: not mended yet"]]
