// Mixtures of experts: choosing, sorting, gathering and adding rows, and the products of one expert
// after another. The first four move each row once and are bound by memory; the products are
// kernels/gemm.h's, of an expert's rows at a time, at most kChunk of them: their workspace must be
// known before it is known how many rows an expert gets.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/gemm.h"
#include "backend/cpu/scalar_access.h"
#include "core/error.h"
#include "ops/mixture.h"

namespace supersonic {
namespace {

using cpu::load_as_double;
using cpu::pool_of;
using cpu::store_from_double;

constexpr std::int64_t kChunk = 512, kFewRows = 8;

template <class T>
const T* in(const Pointers& ptr, int i) {
  return static_cast<const T*>(ptr.in[i]);
}

// Index out of [0, n) would mean that the groups were not made by group_rows.
void check_index(std::int64_t index, std::int64_t n, const char* what) {
  CHECK(index >= 0 && index < n, "{}: row {} of {}", what, index, n);
}

float value(const void* p, DType t, std::int64_t i) {
  if (t == DType::f32) return static_cast<const float*>(p)[i];
  return t == DType::bf16 ? static_cast<float>(static_cast<const bf16*>(p)[i])
                          : static_cast<float>(load_as_double(p, t, i));
}

bool f32_or_bf16(DType t) { return t == DType::f32 || t == DType::bf16; }

// y[0 … n) = Σ_j w[j] x[row[j]], in fp32.
void weighted_rows(const Spec& x, const void* data, const std::int32_t* rows, const float* w,
                   std::int64_t k, std::int64_t d, float* sums) {
  std::fill_n(sums, d, 0.0f);
  for (std::int64_t j = 0; j < k; ++j) {
    if (x.dtype == DType::f32) {
      const float* from = static_cast<const float*>(data) + rows[j] * d;
      for (std::int64_t e = 0; e < d; ++e) sums[e] += w[j] * from[e];
    } else {
      const bf16* from = static_cast<const bf16*>(data) + rows[j] * d;
      for (std::int64_t e = 0; e < d; ++e) sums[e] += w[j] * static_cast<float>(from[e]);
    }
  }
}

void store_row(const float* from, void* to, DType t, std::int64_t row, std::int64_t d) {
  if (t == DType::f32)
    return void(std::memcpy(static_cast<float*>(to) + row * d, from,
                            static_cast<std::size_t>(d) * sizeof(float)));
  bf16* out = static_cast<bf16*>(to) + row * d;
  for (std::int64_t e = 0; e < d; ++e) out[e] = bf16(from[e]);
}

const char* reject_rows(const Problem& p) {
  return f32_or_bf16(p.in[0].spec.dtype) ? nullptr : "rows must be f32 or bf16";
}

}  // namespace

KERNEL(top_k) {
  return {
      .op = &op<TopK>(),
      .name = "cpu.top_k",
      .launch =
          [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const Spec& x = p.in[0].spec;
            const std::int64_t experts = x.shape[1], k = p.attr<TopK>().k;
            auto* indices = static_cast<std::int32_t*>(ptr.out[1]);
            pool_of(lane).ranges(x.shape[0], 16, [&](std::int64_t begin, std::int64_t end, int) {
              for (std::int64_t t = begin; t < end; ++t)
                for (std::int64_t j = 0; j < k; ++j) {
                  const std::int32_t* taken = indices + t * k;
                  std::int64_t best = -1;
                  double top = 0;
                  for (std::int64_t e = 0; e < experts; ++e) {
                    if (std::find(taken, taken + j, static_cast<std::int32_t>(e)) != taken + j)
                      continue;
                    const double v = load_as_double(ptr.in[0], x.dtype, t * experts + e);
                    if (best < 0 || v > top) best = e, top = v;
                  }
                  indices[t * k + j] = static_cast<std::int32_t>(best);
                  if (ptr.out[0]) store_from_double(ptr.out[0], x.dtype, t * k + j, top);
                }
            });
          },
      .always = 2};
}

KERNEL(top_k_grad) {
  return {.op = &op<TopKGrad>(),
          .name = "cpu.top_k_grad",
          .launch = [](const Problem& p, const Pointers& ptr, Lane&) {
            const Shape& s = p.in[0].spec.shape;
            const std::int64_t width = p.attr<TopKGrad>().width;
            const DType t = p.out[0].spec.dtype;
            std::memset(ptr.out[0], 0, bytes_of(p.out[0].spec));
            for (std::int64_t i = 0; i < s[0] * s[1]; ++i) {
              const std::int64_t e = in<std::int32_t>(ptr, 0)[i];
              check_index(e, width, "top_k");
              store_from_double(ptr.out[0], t, i / s[1] * width + e,
                                load_as_double(ptr.in[1], t, i));
            }
          }};
}

KERNEL(group_rows) {
  return {.op = &op<GroupRows>(),
          .name = "cpu.group_rows",
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane&) {
                const std::int64_t n = p.in[0].spec.shape[0], experts = p.attr<GroupRows>().experts;
                const auto* ids = in<std::int32_t>(ptr, 0);
                auto *order = static_cast<std::int32_t*>(ptr.out[0]),
                     *place = static_cast<std::int32_t*>(ptr.out[1]);
                auto *begin = static_cast<std::int32_t*>(ptr.out[2]),
                     *sorted = static_cast<std::int32_t*>(ptr.out[3]);
                std::fill_n(begin, experts + 1, 0);
                for (std::int64_t i = 0; i < n; ++i) {
                  check_index(ids[i], experts, "group_rows");
                  ++begin[ids[i] + 1];
                }
                for (std::int64_t e = 0; e < experts; ++e) begin[e + 1] += begin[e];
                // begin[e] runs to the end of its group, and is put back after.
                for (std::int64_t i = 0; i < n; ++i) {
                  const std::int32_t row = begin[ids[i]]++;
                  order[row] = static_cast<std::int32_t>(i), place[i] = row, sorted[row] = ids[i];
                }
                for (std::int64_t e = experts; e > 0; --e) begin[e] = begin[e - 1];
                begin[0] = 0;
              },
          .always = 15};
}

KERNEL(dispatch) {
  return {.op = &op<Dispatch>(),
          .name = "cpu.dispatch",
          .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
            const Spec& x = p.in[0].spec;
            const std::int64_t tokens = x.shape[0], n = p.out[0].spec.shape[0], k = n / tokens;
            const std::size_t row = static_cast<std::size_t>(x.shape[1]) * size_of(x.dtype);
            pool_of(lane).ranges(n, 16, [&](std::int64_t begin, std::int64_t end, int) {
              for (std::int64_t i = begin; i < end; ++i) {
                const std::int64_t from = in<std::int32_t>(ptr, 1)[i] / k;
                check_index(from, tokens, "dispatch");
                std::memcpy(static_cast<std::byte*>(ptr.out[0]) + static_cast<std::size_t>(i) * row,
                            in<std::byte>(ptr, 0) + static_cast<std::size_t>(from) * row, row);
              }
            });
          }};
}

KERNEL(combine) {
  return {.op = &op<Combine>(),
          .name = "cpu.combine",
          .reject = reject_rows,
          .workspace =
              [](const Problem& p) {
                return static_cast<std::size_t>(p.threads *
                                                (p.in[0].spec.shape[1] + p.in[1].spec.shape[1])) *
                       sizeof(float);
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                const Spec &x = p.in[0].spec, &w = p.in[1].spec;
                const std::int64_t n = x.shape[0], d = x.shape[1], k = w.shape[1];
                pool_of(lane).ranges(
                    w.shape[0], 4, [&](std::int64_t begin, std::int64_t end, int thread) {
                      float* sums = static_cast<float*>(ptr.workspace) + thread * (d + k);
                      for (std::int64_t t = begin; t < end; ++t) {
                        const std::int32_t* rows = in<std::int32_t>(ptr, 3) + t * k;
                        for (std::int64_t j = 0; j < k; ++j) {
                          check_index(rows[j], n, "combine");
                          sums[d + j] = value(ptr.in[1], w.dtype, t * k + j);
                        }
                        weighted_rows(x, ptr.in[0], rows, sums + d, k, d, sums);
                        store_row(sums, ptr.out[0], x.dtype, t, d);
                      }
                    });
              }};
}

KERNEL(combine_grad) {
  return {.op = &op<CombineGrad>(),
          .name = "cpu.combine_grad",
          .reject = [](const Problem& p) -> const char* {
            return p.in[4].spec.dtype != p.in[0].spec.dtype ? "x and dy must have one dtype"
                                                            : reject_rows(p);
          },
          .workspace =
              [](const Problem& p) {
                return static_cast<std::size_t>(p.threads * p.in[0].spec.shape[1]) * sizeof(float);
              },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                const Spec &x = p.in[0].spec, &w = p.in[1].spec;
                const std::int64_t n = x.shape[0], d = x.shape[1], k = w.shape[1];
                pool_of(lane).ranges(n, 16, [&](std::int64_t begin, std::int64_t end, int thread) {
                  float* sums = static_cast<float*>(ptr.workspace) + thread * d;
                  for (std::int64_t i = begin; i < end; ++i) {  // entry i = (token, choice)
                    const auto token = static_cast<std::int32_t>(i / k);
                    const std::int64_t row = in<std::int32_t>(ptr, 3)[i];
                    check_index(row, n, "combine");
                    if (ptr.out[0]) {
                      const float weight = value(ptr.in[1], w.dtype, i);
                      weighted_rows(p.in[4].spec, ptr.in[4], &token, &weight, 1, d, sums);
                      store_row(sums, ptr.out[0], x.dtype, row, d);
                    }
                    if (!ptr.out[1]) continue;
                    double dot = 0;
                    for (std::int64_t e = 0; e < d; ++e)
                      dot += static_cast<double>(value(ptr.in[0], x.dtype, row * d + e)) *
                             value(ptr.in[4], x.dtype, token * d + e);
                    store_from_double(ptr.out[1], w.dtype, i, dot);
                  }
                });
              }};
}

namespace {

// The product of some rows of one expert. ptr may be null: shapes alone.
struct ExpertCall {
  cpu::GemmTerm term;
  cpu::GemmProblem problem;
};

bool int8_rows(const Problem& p, std::int64_t m) {
  const auto& a = p.attr<GroupedLinear>();
  return p.compute == Compute::int8 && p.in[1].spec.format && !a.trans &&
         (m <= kFewRows || !a.sensitive);
}

void fill_call(ExpertCall& c, const Problem& p, std::int64_t m, std::int64_t expert, const void* x,
               void* y, const Pointers* ptr) {
  const Spec &xs = p.in[0].spec, &ws = p.in[1].spec;
  const bool trans = p.attr<GroupedLinear>().trans;
  const std::int64_t experts = p.in[2].spec.shape[0] - 1, rows = ws.shape[0] / experts,
                     cols = ws.shape[1];
  cpu::MatrixRef a, w;
  a.data = x;
  a.dtype = int8_rows(p, m) ? DType::i8 : xs.dtype;
  a.rows = m, a.cols = a.ld = xs.shape[1];
  w.dtype = ws.dtype, w.format = ws.format;
  w.rows = rows, w.cols = w.ld = cols;
  if (ptr) {
    const std::size_t row =
        w.format ? static_cast<std::size_t>(cols / w.format->block * w.format->block_bytes)
                 : static_cast<std::size_t>(cols) * size_of(w.dtype);
    w.data = in<std::byte>(*ptr, 1) + static_cast<std::size_t>(expert * rows) * row;
    if (w.format)
      w.planes.data[0] = static_cast<const std::byte*>(ptr->planes[1]->data[0]) +
                         static_cast<std::size_t>(expert * rows) * row;
  }
  c.term = {a, false, w, trans};
  c.problem = {};
  c.problem.m = m;
  c.problem.n = c.problem.ldy = p.out[0].spec.shape[1];
  c.problem.terms = {&c.term, 1};
  c.problem.y = y;
  c.problem.y_dtype = p.out[0].spec.dtype;
  c.problem.compute = p.compute;
}

std::size_t aligned(std::size_t n) { return (n + 63) / 64 * 64; }

// Of the rows as int8, for the largest chunk.
std::size_t prepared_bytes(const Problem& p) {
  const std::int64_t most = std::min(kChunk, p.in[0].spec.shape[0]);
  std::size_t bytes = 0;
  for (std::int64_t m = 1; m <= most; ++m)
    if (int8_rows(p, m)) bytes = std::max(bytes, cpu::int8_rows_bytes(m, p.in[0].spec.shape[1]));
  return aligned(bytes);
}

std::size_t product_bytes(const Problem& p) {
  std::size_t bytes = 0;
  for (std::int64_t m = 1; m <= std::min(kChunk, p.in[0].spec.shape[0]); ++m) {
    ExpertCall c;
    fill_call(c, p, m, 0, nullptr, nullptr, nullptr);
    bytes = std::max(bytes, cpu::gemm_workspace(c.problem, p.threads));
  }
  return bytes;
}

void launch_grouped(const Problem& p, const Pointers& ptr, Lane& lane) {
  const Spec &x = p.in[0].spec, &y = p.out[0].spec;
  const std::int64_t n = x.shape[0], experts = p.in[2].spec.shape[0] - 1;
  const auto* begin = in<std::int32_t>(ptr, 2);
  CHECK(begin[0] == 0 && begin[experts] == n, "grouped_linear: the groups end at row {} of {}",
        begin[experts], n);
  auto* prepared = static_cast<std::byte*>(ptr.workspace);
  auto* workspace = prepared + prepared_bytes(p);
  for (std::int64_t e = 0; e < experts; ++e) {
    CHECK(begin[e] <= begin[e + 1], "grouped_linear: group {} begins behind its end", e);
    for (std::int64_t row = begin[e]; row < begin[e + 1]; row += kChunk) {
      const std::int64_t m = std::min<std::int64_t>(kChunk, begin[e + 1] - row);
      const void* from =
          in<std::byte>(ptr, 0) + static_cast<std::size_t>(row * x.shape[1]) * size_of(x.dtype);
      if (int8_rows(p, m)) {
        cpu::quantize_int8_rows(pool_of(lane), from, x.dtype, m, x.shape[1], x.shape[1], prepared);
        from = prepared;
      }
      ExpertCall c;
      fill_call(c, p, m, e, from,
                static_cast<std::byte*>(ptr.out[0]) +
                    static_cast<std::size_t>(row * y.shape[1]) * size_of(y.dtype),
                &ptr);
      cpu::gemm(pool_of(lane), c.problem, workspace);
    }
  }
}

}  // namespace

KERNEL(grouped_linear) {
  return {.op = &op<GroupedLinear>(),
          .name = "cpu.grouped_linear",
          .reject = [](const Problem& p) -> const char* {
            const Spec& w = p.in[1].spec;
            if (!f32_or_bf16(p.in[0].spec.dtype)) return "x must be f32 or bf16";
            if (!w.format && !f32_or_bf16(w.dtype) && w.dtype != DType::f16)
              return "W must be f32, bf16, f16 or quantized";
            if (w.format && (!w.format->row_blocks || w.format->planes != 1))
              return "W must have rows of whole blocks";
            return nullptr;
          },
          .workspace = [](const Problem& p) { return prepared_bytes(p) + product_bytes(p); },
          .launch = launch_grouped};
}

}  // namespace supersonic
