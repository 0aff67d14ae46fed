#!/usr/bin/env python3
"""Seeded kernel bugs must make the generated operation tests fail.

Each mutant of mutants.py is applied to a copy of src/ in a temporary folder. The objects that depend on the changed file, of the
instruction set that this machine uses, are compiled from the copy and linked with the other objects of an existing build into another
libsupersonic, and the tests run against that library. A mutant passes when they fail or hang. Neither the sources nor the build
folder are changed, other than that the build is brought up to date first.

    tests/mutants/run.py [--build FOLDER] [--jobs N] [--only TEXT] [--list]
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants import ISA, MUTANTS

ROOT = Path(__file__).resolve().parents[2]
HANGS_AFTER = 120  # seconds


class Stale(Exception):
    """The mutant no longer fits the sources."""


def output_of(command, **kwargs):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **kwargs).stdout


class Build:
    """What ninja knows of a build folder: commands of the library's objects, and what each of them depends on."""

    def __init__(self, folder, jobs):
        self.folder, self.jobs = folder, jobs
        subprocess.run(["ninja", "-C", folder, f"-j{jobs}", "supersonic", "supersonic_tests"], check=True, stdout=subprocess.DEVNULL)
        self.compile, self.link = {}, None
        for command in output_of(["ninja", "-C", folder, "-t", "commands", "supersonic"]).splitlines():
            if found := re.search(r" -o (CMakeFiles/supersonic\.dir/\S+\.o) -c ", command):
                self.compile[found[1]] = command
            elif " -shared " in command:
                self.link = command
        self.dependents = {}
        current = None
        for line in output_of(["ninja", "-C", folder, "-t", "deps"]).splitlines():
            if line and not line.startswith(" "):
                current = line.split(":")[0]
            elif line.strip() and current in self.compile and runs_here(current):
                self.dependents.setdefault(os.path.normpath(folder / line.strip()), []).append(current)

    def mutate(self, scratch, mutant):
        """Makes a library with the change in `scratch`; everything else of it is as built."""
        shutil.copytree(ROOT / "src", scratch / "src")
        path = scratch / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise Stale(f"{mutant.file} does not have, or has more than once, what it changes: update tests/mutants/mutants.py")
        path.write_text(text.replace(mutant.old, mutant.new))
        targets = self.dependents.get(str(ROOT / mutant.file), [])
        if not targets:
            raise Stale(f"nothing is compiled from {mutant.file}")
        link, commands = self.link, []
        for number, target in enumerate(targets):
            mutated = scratch / f"{number}.o"
            command = self.compile[target].replace(str(ROOT / "src"), str(scratch / "src"))
            command = re.sub(r" -MD -MT \S+ -MF \S+", "", command).replace(f" -o {target} ", f" -o {mutated} ")
            commands.append(command.replace(" -O3 ", " -O1 "))  # compiles in half the time
            link = link.replace(f" {target} ", f" {mutated} ", 1)
        with ThreadPoolExecutor(self.jobs) as pool:
            for done in pool.map(lambda c: subprocess.run(c, shell=True, cwd=self.folder, capture_output=True, text=True), commands):
                if done.returncode:
                    raise Stale(f"it does not compile: {done.stderr[:500]}")
        library = re.search(r" -o (\S+) ", link)[1]
        link = link.replace(f" -o {library} ", f" -o {scratch / Path(library).name} ").removeprefix(": && ").removesuffix(" && :")
        subprocess.run(shlex.split(link), cwd=self.folder, check=True)

    def run_tests(self, tests, library_folder=None):
        """(passed, why not) of the tests, against the library in a folder or the build's own."""
        env = dict(os.environ)
        if library_folder:
            env["LD_LIBRARY_PATH"] = str(library_folder)
        command = [self.folder / "bin" / "supersonic_tests", f"--gtest_filter={tests}", "--gtest_brief=1", "--gtest_fail_fast"]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANGS_AFTER)
        except subprocess.TimeoutExpired:
            return False, f"no end after {HANGS_AFTER} s"
        if not re.search(r"\[=+\] [1-9]\d* tests? from", done.stdout) and done.returncode == 0:
            return False, f"no test is called {tests}"
        failed = next((line.removeprefix("[  FAILED  ] ") for line in done.stdout.splitlines() if line.startswith("[  FAILED  ]")), "")
        return done.returncode == 0, failed.split(", where")[0] or f"exit status {done.returncode}"


def runs_here(target):
    """Whether an object holds code that this machine's tests run: that of its instruction set, or of none in particular."""
    found = re.search(r"_(avx512|avx2|portable)\.cpp\.o$", target)
    return not found or found[1] == ISA


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path(os.environ.get("SUPERSONIC_BUILD", ROOT / "build/release")))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compile jobs")
    parser.add_argument("--only", default="", help="mutants whose names contain this")
    parser.add_argument("--list", action="store_true", help="show the mutants and stop")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.only in m.name]
    if options.list:
        print("\n".join(f"{m.name}  ({m.file})" for m in chosen))
        return 0
    build = Build(options.build.resolve(), options.jobs)
    started, survivors = time.monotonic(), 0
    for tests in sorted({m.tests for m in chosen}):
        good, why = build.run_tests(tests)
        if not good:
            sys.exit(f"the kernels as they are fail {tests}: {why}")
    for mutant in chosen:
        begin, noticed = time.monotonic(), False
        with tempfile.TemporaryDirectory() as scratch:
            try:
                build.mutate(Path(scratch), mutant)
                good, why = build.run_tests(mutant.tests, scratch)
                noticed, text = not good, "nothing noticed it" if good else f"noticed by {why}"
            except Stale as error:
                text = str(error)
        survivors += not noticed
        print(f"{'ok  ' if noticed else 'FAIL'} {time.monotonic() - begin:5.1f} s  {mutant.name}: {text}", flush=True)
    print(f"{len(chosen) - survivors} passed, {survivors} failed in {time.monotonic() - started:.0f} s ({ISA})")
    return survivors != 0


if __name__ == "__main__":
    sys.exit(main())
