"""The seeded bugs of run.py: what each is called, where it goes, and which tests must notice it.

A mutant is one small change to a kernel, of the kind that people make: a tail left out, a mask half applied, a scale of the neighbour.
Where instruction sets have code of their own, the mutant goes into that of the best one here, which is the one that the tests run.
"""

import platform
from pathlib import Path
from typing import NamedTuple

CPU = "src/backend/cpu/"
KERNELS = CPU + "kernels/"
FLAGS = Path("/proc/cpuinfo").read_text().split() if platform.machine() == "x86_64" else []
ISA = "avx512" if "avx512_bf16" in FLAGS else "avx2" if "avx2" in FLAGS else "portable"
GENERATED = "Generated/*"


class Mutant(NamedTuple):
    name: str
    file: str
    old: str  # stands there exactly once
    new: str
    tests: str = GENERATED


def for_isa(name, avx512, elsewhere):
    """The same bug in the AVX-512 code or in the code of the other instruction sets."""
    return Mutant(name, *(avx512 if ISA == "avx512" else elsewhere))


MUTANTS = [
    Mutant("rms_norm: tail of a row left out of the sum", KERNELS + "rms_norm_kernels.h",
           "for_each_vec(d - i, [&](auto j, auto n) { sums[0] = term(sums[0], i + j, n); });",
           "for_each_vec((d - i) / kLanes * kLanes, [&](auto j, auto n) { sums[0] = term(sums[0], i + j, n); });"),
    Mutant("rms_norm: weight gradient without the first row of a block", KERNELS + "rms_norm_kernels.h",
           "for (std::int64_t row = a.rows * b / blocks; row <",
           "for (std::int64_t row = a.rows * b / blocks + 1; row <"),
    Mutant("attention: last keys of a block not masked", KERNELS + "attention_forward.h",
           "r.masked = range.common_begin > key0 + r.begin || range.common_end < key0 + r.end;",
           "r.masked = range.common_begin > key0 + r.begin;"),
    Mutant("attention: the key before lo is seen", KERNELS + "attention_forward.h",
           "const VecI seen = (key >= lo) & (key <= hi) &", "const VecI seen = (key >= lo - 1) & (key <= hi) &"),
    Mutant("attention backward: the key before lo is seen", KERNELS + "attention_backward.h",
           "p[u] = select((key >= low) & (key <= high) &", "p[u] = select((key >= low - 1) & (key <= high) &"),
    Mutant("attention of a few tokens: mask forgets hi", KERNELS + "attention_few.h",
           "(key >= lo[c]) & (key <= hi[c]) & (key <", "(key >= lo[c]) & (key <"),
    Mutant("attention of a few tokens: old sum not rescaled", KERNELS + "attention_few.h",
           "sum[c] = sum[c] * alpha + reduce_add(total);", "sum[c] = sum[c] + reduce_add(total);"),
    Mutant("attention: pieces of the keys added up without their weights", KERNELS + "attention_forward.h",
           "sum += weights[s] * piece(s)[d + 1];", "sum += piece(s)[d + 1];"),
    Mutant("attention on a Q8_0 cache: values of a block with the next one's scale", KERNELS + "attention_few.h",
           "bits[i] = values[i * v_step + b].d.bits;", "bits[i] = values[i * v_step + (b + 1) % (d / kNumbers<Q8>)].d.bits;"),
    Mutant("attention on a coded cache: the tile is decoded from the first head", KERNELS + "attention_forward.h",
           "static_cast<const KV*>(base) + (key0 * stride + kv_head * d) / kNumbers<KV>;",
           "static_cast<const KV*>(base) + (key0 * stride + (kCoded<KV> ? 0 : kv_head * d)) / kNumbers<KV>;"),
    for_isa("quantized product: scale taken for the minimum",
            (KERNELS + "gemm_codec_avx512.h", "_mm512_set1_ps(g.min[half])", "_mm512_set1_ps(g.scale[half])"),
            (KERNELS + "gemm_runs_x86.h", "scale[(halves + h) * width] = group.min[h];", "scale[(halves + h) * width] = group.scale[h];")
            if ISA == "avx2" else
            (KERNELS + "gemm_generic.h", "both(g.scale, from_f16(load16(b)) * static_cast<float>(scale));",
             "both(g.scale, from_f16(load16(b + 2)) * static_cast<float>(scale));")),
    Mutant("int8 product: both halves of a group with the first one's scale",
           *((KERNELS + "gemm_generic.h", "scale[h * width + c] = group.scale[h];", "scale[h * width + c] = group.scale[0];")
             if ISA == "portable" else
             (KERNELS + "gemm_runs_x86.h", "scale[h * width] = group.scale[h];", "scale[h * width] = group.scale[0];"))),
    for_isa("int8 product: zero point left out",
            (KERNELS + "gemm_avx512.cpp", "_mm512_mullo_epi32(sums, _mm512_set1_epi32(-zero))",
             "_mm512_mullo_epi32(sums, _mm512_set1_epi32(zero - zero))"),
            (KERNELS + "gemm_generic.h", "static_cast<float>(sums[c] - a.zero * total)", "static_cast<float>(sums[c])")),
    for_isa("int8 row: offset times the scale instead of the sum",
            (KERNELS + "gemm_gemv_avx512.h", "(kHasMin<codec> ? half_at(b + 2) : kOffset * d) * s[1];",
             "(kHasMin<codec> ? half_at(b + 2) : kOffset * d) * s[0];"),
            (KERNELS + "gemm_generic.h", "offset * x[r].half_sums[g * 2 + h];", "offset * x[r].scale_sum[g * 2];")),
    for_isa("product of a few rows: tail of the sum left out",
            (KERNELS + "gemm_gemv_avx512.h", "add(0, i, first_lanes(k - i));", "add(0, i, first_lanes((k - i) / 16 * 16));"),
            (KERNELS + "gemm_generic.h", "for (std::int64_t j = whole; j < n; ++j) sums", "for (std::int64_t j = whole; j + 1 < n; ++j) sums")),
    Mutant("chain: tail of a row not computed", CPU + "chain_loops.h",
           "static_cast<int>(cols - col < kChainTile ? cols - col : kChainTile), tiles);",
           "static_cast<int>(cols - col < kChainTile ? (cols - col) / V::lanes * V::lanes : kChainTile), tiles);"),
    Mutant("chain: outer stride of the neighbouring dimension", CPU + "chain_loops.h",
           "offset += rest % task.dims[d] * in.strides[d];", "offset += rest % task.dims[d] * in.strides[d + 1];"),
    Mutant("linear_xent: rows of the first word ignored", CPU + "labelled_rows.h",
           "if (labels[i] >= 0) kept", "if (labels[i] > 0) kept"),
    Mutant("linear_xent: gradient of ignored rows not cleared", CPU + "linear_xent_kernel.cpp",
           "if (dx) std::memset(dx, 0, l.t * row);", "if (dx) std::memset(dx, 0, row);"),
    Mutant("linear_xent: a block of words overwrites the ones before", CPU + "linear_xent_kernel.cpp",
           "c.problem.accumulate = back && word > 0;", "c.problem.accumulate = back && word > kWords;"),
    Mutant("softmax_xent: gradient of word 0 instead of the label's", KERNELS + "softmax_xent_kernels.h",
           "store(x + label,\n", "store(x,\n"),
    Mutant("gradient of the head: the label's part where p is, not p - 1", KERNELS + "softmax_xent_kernels.h",
           "store(x + label, set(static_cast<float>(__builtin_expm1(-loss)) * scale), 1);",
           "store(x + label, set(static_cast<float>(__builtin_exp(-loss)) * scale), 1);"),
    Mutant("gradient of the head: rows of the chunk before", CPU + "linear_xent_grad_kernel.cpp",
           "std::memcpy(base + l.rows + i * row, x + from * row, row);", "std::memcpy(base + l.rows + i * row, x + kept[i] * row, row);"),
    Mutant("gradient of a table: the last token left out", KERNELS + "embedding_kernels.h",
           "for (std::int64_t i = 0; i < a.n; ++i) {", "for (std::int64_t i = 0; i + 1 < a.n; ++i) {"),
    Mutant("rope: inverse turns forward", KERNELS + "rope_kernels.h",
           "const float sign = a.inverse ? -a.factor : a.factor;", "const float sign = a.factor;"),
    Mutant("embedding: every decoded row is the first one of its thread", KERNELS + "embedding_kernels.h",
           "const std::int64_t first = a.ids[i] * a.d, skip", "const std::int64_t first = a.ids[begin] * a.d, skip"),
    Mutant("pad: half of the end not cleared", CPU + "primitive_kernels.cpp",
           "std::memset(y + o * total + a.before * inner + copied, 0, a.after * inner);",
           "std::memset(y + o * total + a.before * inner + copied, 0, a.after * inner / 2);"),
    Mutant("dequantize: blocks of the row before", CPU + "primitive_kernels.cpp",
           "f.decode(*ptr.planes[0], first, count, values);", "f.decode(*ptr.planes[0], u / 2 * run, count, values);"),
    Mutant("adamw: both corrections by beta1", KERNELS + "adamw_kernels.h",
           "1.0 - __builtin_pow(h.beta2, t)", "1.0 - __builtin_pow(h.beta1, t)", "AdamW.*"),
    Mutant("adamw, 8 bits: tail of the last block left out", KERNELS + "adamw_kernels.h",
           "const std::int64_t count = left < kAdamWBlock ? left : kAdamWBlock;",
           "const std::int64_t count = left < kAdamWBlock ? left / kLanes * kLanes : kAdamWBlock;", "AdamW.*"),
    Mutant("adamw, parameters in bf16: two neighbours share a draw", KERNELS + "adamw_kernels.h",
           "[element / kDrawsPerBlock] >> (element % 2 * 16)", "[element / kDrawsPerBlock] >> (element % 1 * 16)", "AdamW.*"),
    Mutant("adamw, parameters in bf16: rounded to nearest", KERNELS + "adamw_kernels.h",
           "narrow[i] = round_stochastically(values[i], draws.of(i));", "narrow[i] = round_stochastically(values[i], 0x8000 + 0 * draws.of(i));", "AdamW.*"),
    Mutant("sampling: tail left out of the maximum", "src/ops/sampling.cpp",
           "for (; i < logits.size(); ++i) highest =", "for (; i + width < logits.size(); ++i) highest =", "SampleStep.*"),
    Mutant("sampling: top-p without what is beyond the first candidates sorted", "src/ops/sampling.cpp",
           "left < kept && sum < mass; step *= 4", "left < 64 && sum < mass; step *= 4", "SampleStep.*"),
    Mutant("experts: the gradient of the rows before lost where an expert has many", CPU + "mixture_grad_kernels.cpp",
           "c.problem.accumulate = added || row > begin[e];", "c.problem.accumulate = added;"),
    Mutant("experts: the gradient of one without rows not cleared", CPU + "mixture_grad_kernels.cpp",
           "if (begin[e] == begin[e + 1] && !added) std::memset(matrix, 0, bytes);", ""),
    Mutant("experts: a gradient that is kept replaced instead of added to", CPU + "mixture_grad_kernels.cpp",
           "c.problem.accumulate = added || row > begin[e];", "c.problem.accumulate = row > begin[e];", "AccumulatedGradients.*"),
]
