#!/usr/bin/env python3
"""Seeded kernel bugs must make the generated operation tests fail.

Each mutant is one small change to a CPU kernel. It is applied to a copy of src/, the objects that depend on the changed file are
compiled from the copy and linked with the other objects of an existing build into another libsupersonic, and the generated
tests run against that library. A mutant passes when they fail. Run: tests/mutants/run.py [build folder, default build/release]
"""
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = "src/backend/cpu/kernels/"
AVX512 = "avx512_bf16" in Path("/proc/cpuinfo").read_text() if platform.machine() == "x86_64" else False

# name, file, what stands there, what the mutant has instead
MUTANTS = [
    ("wrong tail in rms_norm", KERNELS + "rms_norm_kernels.h",
     "for_each_vec(d - i, [&](auto j, auto n) { sums[0] = term(sums[0], i + j, n); });",
     "for_each_vec((d - i) / kLanes * kLanes, [&](auto j, auto n) { sums[0] = term(sums[0], i + j, n); });"),
    ("missed mask in attention", KERNELS + "attention_forward.h",
     "r.masked = range.common_begin > key0 + r.begin || range.common_end < key0 + r.end;",
     "r.masked = range.common_begin > key0 + r.begin;"),
    ("swapped scale in a quantized decode", KERNELS + "gemm_codec_avx512.h",
     "both(g.scale, half_at(b) * static_cast<float>(scale));",
     "both(g.scale, half_at(b + 2) * static_cast<float>(scale));") if AVX512 else
    ("swapped scale in a quantized decode", KERNELS + "gemm_generic.h",
     "both(g.scale, from_f16(load16(b)) * static_cast<float>(scale));",
     "both(g.scale, from_f16(load16(b + 2)) * static_cast<float>(scale));"),
    ("wrong tail in pad", "src/backend/cpu/primitive_kernels.cpp",
     "std::memset(y + o * total + a.before * inner + copied, 0, a.after * inner);",
     "std::memset(y + o * total + a.before * inner + copied, 0, a.after * inner / 2);"),
]


def output_of(command, **kwargs):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **kwargs).stdout


class Build:
    """What ninja knows of a build folder: commands of the library's objects, and what each of them depends on."""

    def __init__(self, folder):
        self.folder = folder
        subprocess.run(["ninja", "-C", folder, "-j2", "supersonic", "supersonic_tests"], check=True, stdout=subprocess.DEVNULL)
        commands = output_of(["ninja", "-C", folder, "-t", "commands", "supersonic"]).splitlines()
        self.compile, self.link = {}, None
        for command in commands:
            if found := re.search(r" -o (CMakeFiles/supersonic\.dir/\S+\.o) -c ", command):
                self.compile[found[1]] = command
            elif " -shared " in command:
                self.link = command
        self.dependents = {}
        current = None
        for line in output_of(["ninja", "-C", folder, "-t", "deps"]).splitlines():
            if line and not line.startswith(" "):
                current = line.split(":")[0]
            elif line.strip() and current in self.compile:
                self.dependents.setdefault(os.path.normpath(folder / line.strip()), []).append(current)

    def mutate(self, scratch, name, file, old, new):
        """The folder of a library with the change; everything else is as built."""
        shutil.copytree(ROOT / "src", scratch / "src")
        path = scratch / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} no longer has the line that '{name}' changes: update tests/mutants/run.py")
        path.write_text(text.replace(old, new))
        link, objects = self.link, self.dependents.get(str(ROOT / file), [])
        if not objects:
            raise ValueError(f"nothing is compiled from {file}")
        jobs = []
        for number, target in enumerate(objects):
            mutated = scratch / f"{number}.o"
            command = self.compile[target].replace(str(ROOT / "src"), str(scratch / "src"))
            command = command.replace(f" -o {target} ", f" -o {mutated} ")
            command = re.sub(r" -MD -MT \S+ -MF \S+", "", command)
            jobs.append(command)
            link = link.replace(f" {target} ", f" {mutated} ", 1)
        with ThreadPoolExecutor(2) as pool:
            for done in pool.map(lambda c: subprocess.run(c, shell=True, cwd=self.folder, capture_output=True, text=True), jobs):
                if done.returncode:
                    raise ValueError(f"the mutant does not compile: {done.stderr[:500]}")
        library = re.search(r" -o (\S+) ", link)[1]
        link = link.replace(f" -o {library} ", f" -o {scratch / Path(library).name} ")
        link = link.split(" && ")[1] if link.startswith(": && ") else link
        subprocess.run(shlex.split(link), cwd=self.folder, check=True)
        return scratch

    def tests_pass(self, library_folder=None):
        env = dict(os.environ)
        if library_folder:
            env["LD_LIBRARY_PATH"] = str(library_folder)
        command = [self.folder / "bin" / "supersonic_tests", "--gtest_filter=Generated/*", "--gtest_brief=1"]
        if library_folder:
            command.append("--gtest_fail_fast")
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        return done.returncode == 0, next((l for l in done.stdout.splitlines() if l.startswith("[  FAILED  ]")), "")


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SUPERSONIC_BUILD", ROOT / "build/release")).resolve()
    build = Build(folder)
    passed = failed = 0

    def report(ok, text):
        nonlocal passed, failed
        passed, failed = passed + ok, failed + (not ok)
        print(("ok    " if ok else "FAIL  ") + text, flush=True)

    clean, first = build.tests_pass()
    report(clean, "the kernels as they are pass" + (f": {first}" if first else ""))
    for name, file, old, new in MUTANTS:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                good, first = build.tests_pass(build.mutate(Path(scratch), name, file, old, new))
                report(not good, f"{name}: " + ("nothing noticed it" if good else f"noticed by {first.removeprefix('[  FAILED  ] ')}"))
            except ValueError as error:
                report(False, f"{name}: {error}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
