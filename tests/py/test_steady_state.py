"""The steady state allocates nothing, and the peak is what the plan said before the run."""

import json


def test_no_allocation_in_training_steps_or_decoding_and_the_peak_is_as_planned(tool, model):
    got = json.loads(tool("allocation_probe", model, 4, 256).stdout)
    assert got["training_allocations"] == 0
    assert got["decoding_allocations"] == 0
    assert got["peak_bytes"] <= 0.8 * 2**30
    wanted = got["planned_bytes"] + got["bare_bytes"]
    assert abs(got["peak_bytes"] - wanted) <= 0.03 * wanted, got


def test_the_same_holds_when_all_weights_are_trained(supersonic, tool, model, tmp_path):
    supersonic("convert", model, tmp_path / "bf16", "--to", "hf", "--type", "bf16", "--no-verify")
    got = json.loads(tool("allocation_probe", tmp_path / "bf16", 1, 128, "full").stdout)
    assert got["training_allocations"] == 0
    wanted = got["planned_bytes"] + got["bare_bytes"]
    assert abs(got["peak_bytes"] - wanted) <= 0.03 * wanted, got
