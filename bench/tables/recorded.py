"""Peers' figures that were measured before, on one H100 80GB (SXM): they stand in a table, labelled so, where the peer is not installed, and
a peer measured now below 0.9 of its own recorded figure voids its row, since something else was using the machine then.

{work: {peer: (figure, peak bytes above a bare context or None)}}; figures in the table's unit. The works' names are those of the tables.
"""

GIB = 2**30
HF, UNSLOTH, LLAMA, CUDNN, FA2 = "HF + PEFT + bitsandbytes", "Unsloth", "llama.cpp", "cuDNN", "FlashAttention 2"
DEVICE = "H100"  # what the GPU's name contains


def gib(figure, memory):
    return figure, memory * GIB


TRAIN = {
    "8B 2x2048, 6 GiB": {HF: gib(5024, 16.49), UNSLOTH: gib(9746, 6.80)},
    "8B 2x2048, 24 GiB": {HF: gib(7174, 50.63), UNSLOTH: gib(14189, 20.77)},
    "8B 2x2048, 6 GiB, text": {HF: gib(5024, 16.49), UNSLOTH: gib(9746, 6.80)},
    "8B 1x8192, 7.8 GiB": {HF: gib(5289, 24.42), UNSLOTH: gib(9176, 7.81)},
    "8B 1x32768, 10 GiB": {UNSLOTH: gib(6395, 14.01)},
    "1B 4x2048, 2.25 GiB": {HF: gib(21502, 14.87), UNSLOTH: gib(36785, 2.25)},
    "1B 4x2048, all kept": {UNSLOTH: gib(68962, 9.50)},
    "13B 2x2048, 8.5 GiB": {HF: gib(3319, 12.84), UNSLOTH: gib(6012, 8.52)},
    "13B 1x8192, 9.6 GiB": {UNSLOTH: gib(5544, 9.65)},
    "8B start to first step": {UNSLOTH: (30.0, None)},
}

DECODE = {
    "decode 128, 8B Q4_K_M": {LLAMA: (266, None)},
    "decode 128 after 8192, 8B Q4_K_M": {LLAMA: (225, None)},
    "prefill 2048, 8B Q4_K_M": {LLAMA: (9862, None)},
    "decode 128, 1B Q4_K_M": {LLAMA: (879, None)},
    "decode 128 after 8192, 1B Q4_K_M": {LLAMA: (720, None)},
    "prefill 2048, 1B Q4_K_M": {LLAMA: (41838, None)},
    "decode 128, 8B bf16": {"HF generate": (14.9, None)},
    "decode 128, 1B bf16": {"HF generate": (18.8, None)},
}

ATTENTION = {
    "d128 4x2048 forward": {CUDNN: (515, None), FA2: (296, None)},
    "d128 4x2048 both": {CUDNN: (421, None), FA2: (235, None)},
    "d128 1x8192 forward": {CUDNN: (625, None), FA2: (339, None)},
    "d128 1x8192 both": {CUDNN: (541, None), FA2: (302, None)},
}
