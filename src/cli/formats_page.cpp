// docs/formats.md, from what the program knows: the format registry, the loops of the CPU's
// products, the mixtures.
#include <fmt/core.h>

#include "backend/cpu/kernels/gemm.h"
#include "cli/help.h"
#include "formats/format.h"
#include "io/gguf.h"
#include "models/quant_mix.h"

namespace supersonic::cli {
namespace {

constexpr std::string_view kIntroduction = R"(# Weight formats

This page is the output of `supersonic help --formats`.

Every format that is read also runs and is trained on: as the frozen base under LoRA, its blocks decoded tile by tile, on a CPU and on a
GPU. The other columns differ.

- **bits**: stored per weight, scales included; **block**: weights under one scale; rows must be whole blocks.
- **written**: by `convert` and `merge`, or only by `train --base`, in memory. No calibration; the squared error is less than that of llama.cpp's
  encoder on bell-shaped, heavy-tailed and real weights, or the bytes are the same.
- **CPU loops**: *int8* where the codes meet activations rounded to int8, which is the fastest; *float* where tiles are decoded to floats. A
  format without loops of its own would read *scalar*: right, and far slower (with one row, 30 to 300 times
  in the block formats that were read so).

What the CPU makes of each is shown by `build/release/bin/format_bench` (`SUPERSONIC_ISA=avx2` for the narrower loops). One run on two threads of
a Zen 4 with AVX-512, on a shared machine, so roughly: of Q4_K's 30 billion weights a second in products with one row (decoding of tokens), Q2_K,
Q2_0, TQ2_0 and Q1_0 reach all and more, TQ1_0 and NVFP4 three quarters, IQ1_S, IQ2_S and IQ1_M 0.5 to 0.6, IQ2_XXS, IQ2_XS and IQ3_XXS 0.35 to 0.5,
IQ3_S 0.28. The lattices then take 17 to 28 % of the memory's rate, so it is not memory that bounds them; what they have more of than others are
loads from tables, four or eight for 32 weights. Over many rows none is below 0.6 of Q4_K; formats with a scale for each 16 weights are the slower ones.
)";

constexpr std::string_view kTests = R"(
## What stands behind each column

| column | test |
| --- | --- |
| read | `tests/formats/blocks_test.cpp` and `tests/py/test_formats.py`: equal to gguf-py bit for bit, over all byte values and random blocks (q1_0 and q2_0: ggml; nf4: bitsandbytes); `tests/py/test_io.py`: in files |
| runs, trains | `tests/py/test_format_models.py`: logits and LoRA gradients of a model in the format equal those of its decoded weights; the generated tests of `Gemm`, in three orientations |
| written | `tests/formats/k_quants_test.cpp`, `tests/formats/blocks_test.cpp`, `tests/py/test_export.py`: error or bytes against llama.cpp and gguf-py |
| CPU loops | `tests/backend/gemm_test.cpp`: every format, operand and instruction set against fp64 |
| mixtures | `tests/models/quant_mix_test.cpp`: the type of each matrix is the one that llama-quantize chose; `tests/py/test_export_live.py`: against llama-quantize itself |
| this page | `tests/py/test_cli.py` |
)";

double bits_of(const Format& f) {
  constexpr std::int64_t kWeights = 1 << 20;
  return 8.0 * static_cast<double>(total_bytes(f, 1, kWeights)) / kWeights;
}

std::string_view loops_of(const Format& f) {
  const cpu::FormatProducts p = cpu::products_of(f);
  return p.int8 ? "int8" : p.own_loops ? "float" : "scalar";
}

std::string_view written(const Format& f) {
  return !f.encode ? "no" : f.ggml_type < 0 ? "`--base`" : "yes";
}

std::string table_of_formats() {
  std::string out =
      "\n| format | GGUF type | bits | block | read, runs, trains | written | CPU loops |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n";
  for (const Format* f : all_formats())
    out += fmt::format("| {} | {} | {:.4g} | {} | yes | {} | {} |\n", f->name,
                       f->ggml_type < 0 ? "in memory alone" : std::to_string(f->ggml_type),
                       bits_of(*f), f->block, written(*f), loops_of(*f));
  return out;
}

std::string table_of_scalars() {
  std::string out =
      "\nNumbers that are not quantized:\n\n| type | GGUF type | bits | as a matrix | as a norm or "
      "bias |\n| --- | --- | --- | --- | --- |\n";
  for (DType t :
       {DType::f32, DType::f16, DType::bf16, DType::f64, DType::i8, DType::i32, DType::i64}) {
    const bool matrix = t == DType::f32 || t == DType::f16 || t == DType::bf16;
    out += fmt::format("| {} | {} | {} | {} | {} |\n", name_of(t), io::ggml_of_scalar(t),
                       8 * size_of(t), matrix ? "read, runs, trains, written" : "refused by name",
                       matrix || t == DType::f64 ? "read" : "refused by name");
  }
  return out +
         "\nThe types i16, q8_1 and q8_k, which no weight has, and those that GGUF has dropped are "
         "refused by name.\n";
}

std::string table_of_mixtures() {
  std::string out =
      "\n## Mixtures\n\n`convert` and `merge` take these names as `--type`, with llama.cpp's rules "
      "for each matrix: attn_v, attn_output and ffn_down, on\nwhich quality depends most, get more "
      "bits in some or all layers, the output layer gets q6_k or q8_0, norms stay f32, and rows "
      "that the blocks\ndo not divide fall back to q8_0, q5_1, q5_0, iq4_nl or q4_0.\n\n| --type | "
      "most matrices | "
      "`general.file_type` |\n| --- | --- | --- |\n";
  for (const models::QuantMix& mix : models::all_mixes())
    out += fmt::format("| {}{} | {} | {} |\n", mix.name,
                       mix.alias.empty() ? "" : fmt::format(" ({})", mix.alias), mix.format,
                       mix.file_type);
  return out;
}

}  // namespace

std::string formats_reference() {
  std::string out(kIntroduction);
  return out + table_of_formats() + table_of_scalars() + table_of_mixtures() + std::string(kTests);
}

}  // namespace supersonic::cli
