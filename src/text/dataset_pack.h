// Token sequences → fixed micro-batches: samples are packed into rows of seq_len tokens, attention
// stays inside each.
//
// Packing is best-fit decreasing and depends on the seed alone; the order of the rows depends on
// (seed, epoch) alone, so step n of a resumed run is step n of an uninterrupted one. fill() writes
// into a batch's buffers and allocates nothing.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/dataset.h"

namespace supersonic::text {

constexpr std::int32_t kIgnore = -100;

// A micro-batch, flat: T = rows * seq_len tokens.
struct Batch {
  std::vector<std::int32_t> ids;  // (T)
  std::vector<std::int32_t>
      labels;  // (T) the next token of the own segment when that is trained, else kIgnore
  std::vector<std::int32_t> positions;  // (T) restart at 0 in each segment
  std::vector<std::int32_t> lo;  // (T) first token of the own segment, as an index into the batch
  std::int64_t trained = 0;      // labels that are not kIgnore
  std::int64_t tokens = 0;       // without padding
};

struct PackOptions {
  std::int64_t seq_len = 2048;
  std::int64_t rows = 1;  // per micro-batch
  std::uint64_t seed = 0;
  bool pack = true;      // false: one sample a row
  std::int32_t pad = 0;  // id that fills a row's end
};

class Packed {
 public:
  // Keeps samples[i] for i in `which`; samples without a trained token are left out. Throws Error
  // when one is longer than seq_len, or none is left.
  Packed(std::span<const Tokens> samples, std::span<const std::uint32_t> which,
         const PackOptions& options);

  std::int64_t rows() const { return static_cast<std::int64_t>(row_begin_.size()) - 1; }
  std::int64_t batches_per_epoch() const { return (rows() + options_.rows - 1) / options_.rows; }
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  std::int64_t skipped() const { return skipped_; }
  // Share of an epoch's positions that hold no token.
  double padding() const {
    return 1.0 - static_cast<double>(tokens()) / static_cast<double>(rows() * options_.seq_len);
  }

  // Of the packed tokens and their order: equal data give equal numbers, other data other ones.
  std::uint64_t fingerprint() const;

  Batch make_batch() const;  // buffers of the right size
  // Micro-batch `step`, counted from the start of training; shuffled: rows in the epoch's order,
  // else in packing order.
  void fill(std::int64_t step, Batch& batch, bool shuffled = true);

 private:
  void fill_row(std::int64_t row, std::int64_t at, Batch& batch) const;
  void order_epoch(std::uint64_t epoch);

  PackOptions options_;
  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> trained_;
  std::vector<std::int64_t> sample_begin_;  // into ids_; one more than samples
  std::vector<std::int64_t> row_begin_;     // into samples; one more than rows
  std::vector<std::uint32_t> order_;        // of rows, in epoch_
  std::uint64_t epoch_ = ~std::uint64_t{0};
  std::int64_t skipped_ = 0;
};

// Which of n samples are trained on and which evaluate. eval < 0: min(5 %, 200) when there are 200
// samples, else none.
struct Split {
  std::vector<std::uint32_t> train, eval;  // ascending
};
Split split_samples(std::size_t n, std::int64_t eval, std::uint64_t seed);

// What a person should know before training.
struct DataReport {
  std::string layout;
  std::vector<std::string> columns;
  std::int64_t samples = 0, tokens = 0, trained = 0;
  std::int64_t cut = 0, empty_answers = 0, open_turns = 0, untrained = 0;
  std::int64_t seq_len = 0;
  std::int64_t length[5] = {};  // tokens a sample: minimum, median, 90 %, 99 %, maximum
  double padding_unpacked = 0, padding_packed = 0;  // share of positions
};
DataReport check_data(std::span<const Tokens> samples, const ReadSummary& summary,
                      const PackOptions& options);
std::string to_string(const DataReport& report);  // lines for people; warnings say what to do

}  // namespace supersonic::text
