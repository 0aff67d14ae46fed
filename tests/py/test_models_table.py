"""docs/models.md says what the tests show."""

import subprocess
import sys

from places import ROOT


def test_the_table_of_models_is_current():
    done = subprocess.run([sys.executable, ROOT / "tools" / "gen_models_table.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
