// Best-fit decreasing over a table of rows by free space, a counter-based shuffle, and the flat
// batch.
#include "text/dataset_pack.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "core/error.h"

namespace supersonic::text {
namespace {

// A stateless generator: the same (key, counter) gives the same bits anywhere (splitmix64's
// finaliser).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void shuffle(std::vector<std::uint32_t>& order, std::uint64_t key) {
  std::iota(order.begin(), order.end(), 0u);
  for (std::size_t i = order.size(); i > 1; --i) {
    const auto wide = static_cast<unsigned __int128>(mix(key ^ mix(i))) * i;  // uniform in [0, i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(wide >> 64)]);
  }
}

// Rows of samples. Each sample goes where the least space is left over.
std::vector<std::vector<std::uint32_t>> best_fit(std::vector<std::uint32_t> order,
                                                 std::span<const Tokens> samples,
                                                 std::int64_t seq_len) {
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return samples[a].ids.size() > samples[b].ids.size();
  });
  std::vector<std::vector<std::uint32_t>> rows;
  std::set<std::pair<std::int64_t, std::uint32_t>> space;  // free tokens, row
  for (std::uint32_t i : order) {
    const auto need = static_cast<std::int64_t>(samples[i].ids.size());
    auto at = space.lower_bound({need, 0});
    std::uint32_t row = 0;
    std::int64_t room = seq_len;
    if (at == space.end()) {
      row = static_cast<std::uint32_t>(rows.size());
      rows.emplace_back();
    } else {
      std::tie(room, row) = *at;
      space.erase(at);
    }
    rows[row].push_back(i);
    if (room > need) space.insert({room - need, row});
  }
  return rows;
}

bool any_trained(const Tokens& t) {
  // the first token has no predecessor to be predicted from
  return t.trained.size() > 1 &&
         std::find(t.trained.begin() + 1, t.trained.end(), 1) != t.trained.end();
}

}  // namespace

Packed::Packed(std::span<const Tokens> samples, std::span<const std::uint32_t> which,
               const PackOptions& options)
    : options_(options) {
  CHECK(options.seq_len > 0 && options.rows > 0, "packing: seq_len {} and rows {} must be positive",
        options.seq_len, options.rows);
  CHECK(options.rows <= (std::int64_t{1} << 31) / options.seq_len,
        "packing: {} rows of {} tokens are over 2^31", options.rows, options.seq_len);
  std::vector<std::uint32_t> order(which.size()), kept;
  shuffle(order, mix(options.seed));
  for (std::uint32_t at : order) {
    const Tokens& t = samples[which[at]];
    CHECK(static_cast<std::int64_t>(t.ids.size()) <= options.seq_len,
          "packing: a sample of {} tokens in rows of {}", t.ids.size(), options.seq_len);
    if (any_trained(t)) kept.push_back(which[at]);
  }
  skipped_ = static_cast<std::int64_t>(which.size() - kept.size());
  CHECK_FILE(!kept.empty(),
             "no sample has a token to train on: its answers are empty, or cut off by a --seq-len "
             "that is too short");
  std::vector<std::vector<std::uint32_t>> rows;
  if (options.pack) {
    rows = best_fit(std::move(kept), samples, options.seq_len);
  } else {
    for (std::uint32_t i : kept) rows.push_back({i});
  }
  sample_begin_.push_back(0);
  row_begin_.push_back(0);
  for (const auto& row : rows) {
    for (std::uint32_t i : row) {
      ids_.insert(ids_.end(), samples[i].ids.begin(), samples[i].ids.end());
      trained_.insert(trained_.end(), samples[i].trained.begin(), samples[i].trained.end());
      sample_begin_.push_back(static_cast<std::int64_t>(ids_.size()));
    }
    row_begin_.push_back(static_cast<std::int64_t>(sample_begin_.size()) - 1);
  }
  order_.resize(rows.size());
}

std::uint64_t Packed::fingerprint() const {
  std::uint64_t h = mix(static_cast<std::uint64_t>(options_.seq_len));
  for (std::size_t i = 0; i < ids_.size(); ++i)
    h = mix(h ^
            (static_cast<std::uint64_t>(static_cast<std::uint32_t>(ids_[i])) << 1 | trained_[i]));
  for (const auto* begins : {&sample_begin_, &row_begin_})
    for (std::int64_t b : *begins) h = mix(h ^ static_cast<std::uint64_t>(b));
  return h;
}

Batch Packed::make_batch() const {
  const auto size = static_cast<std::size_t>(options_.rows * options_.seq_len);
  Batch b;
  for (auto* v : {&b.ids, &b.labels, &b.positions, &b.lo}) v->resize(size);
  return b;
}

void Packed::order_epoch(std::uint64_t epoch) {
  if (epoch == epoch_) return;
  shuffle(order_, mix(options_.seed ^ mix(epoch + 1)));
  epoch_ = epoch;
}

void Packed::fill(std::int64_t step, Batch& batch, bool shuffled) {
  CHECK(step >= 0, "fill: step {} is negative", step);
  CHECK(batch.ids.size() == static_cast<std::size_t>(options_.rows * options_.seq_len),
        "fill: the batch is not from make_batch");
  if (shuffled) order_epoch(static_cast<std::uint64_t>(step / batches_per_epoch()));
  const std::int64_t first = step % batches_per_epoch() * options_.rows;
  batch.trained = batch.tokens = 0;
  for (std::int64_t r = 0; r < options_.rows; ++r) {
    const std::int64_t row =
        first + r < rows() ? (shuffled ? order_[static_cast<std::size_t>(first + r)] : first + r)
                           : -1;
    fill_row(row, r * options_.seq_len, batch);
  }
}

// row < 0: padding alone
void Packed::fill_row(std::int64_t row, std::int64_t at, Batch& batch) const {
  const std::int64_t end = at + options_.seq_len;
  const auto put = [&](std::int64_t i, std::int32_t id, std::int32_t label, std::int64_t position) {
    batch.ids[i] = id;
    batch.labels[i] = label;
    batch.positions[i] = static_cast<std::int32_t>(position);
    batch.lo[i] = static_cast<std::int32_t>(i - position);
  };
  if (row >= 0) {
    for (std::int64_t s = row_begin_[row]; s < row_begin_[row + 1]; ++s) {
      const std::int64_t begin = sample_begin_[s], size = sample_begin_[s + 1] - begin;
      for (std::int64_t k = 0; k < size; ++k) {
        const bool trained = k + 1 < size && trained_[begin + k + 1];
        put(at + k, ids_[begin + k], trained ? ids_[begin + k + 1] : kIgnore, k);
        batch.trained += trained;
      }
      at += size;
      batch.tokens += size;
    }
  }
  for (; at < end; ++at) put(at, options_.pad, kIgnore, 0);
}

Split split_samples(std::size_t n, std::int64_t eval, std::uint64_t seed) {
  if (eval < 0)
    eval = n >= 200 ? std::min<std::int64_t>(static_cast<std::int64_t>(n / 20), 200) : 0;
  if (eval > 0 && static_cast<std::size_t>(eval) >= n)
    fail(ErrorKind::usage, "--eval-split {} leaves none of the {} samples to train on", eval, n);
  std::vector<std::uint32_t> order(n);
  shuffle(order, mix(seed ^ 0x65766C));
  const auto cut = order.begin() + static_cast<std::ptrdiff_t>(eval);
  Split split{{cut, order.end()}, {order.begin(), cut}};
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.eval.begin(), split.eval.end());
  return split;
}

DataReport check_data(std::span<const Tokens> samples, const ReadSummary& summary,
                      const PackOptions& options) {
  DataReport r;
  r.layout = layout_name(summary.layout);
  r.columns = summary.columns;
  r.samples = static_cast<std::int64_t>(samples.size());
  r.seq_len = options.seq_len;
  std::vector<std::int64_t> lengths;
  std::vector<std::uint32_t> all(samples.size());
  std::iota(all.begin(), all.end(), 0u);
  for (const Tokens& t : samples) {
    lengths.push_back(static_cast<std::int64_t>(t.ids.size()));
    r.tokens += lengths.back();
    r.trained += std::count(t.trained.begin(), t.trained.end(), 1);
    r.cut += t.cut;
    r.empty_answers += t.empty_answer;
    r.open_turns += t.open_turn;
    r.untrained += !any_trained(t);
  }
  if (samples.empty()) return r;
  std::sort(lengths.begin(), lengths.end());
  const double at[] = {0, 0.5, 0.9, 0.99, 1};
  for (int i = 0; i < 5; ++i)
    r.length[i] =
        lengths[static_cast<std::size_t>(at[i] * static_cast<double>(lengths.size() - 1) + 0.5)];
  const double unpacked = static_cast<double>(lengths.back()) * static_cast<double>(r.samples);
  r.padding_unpacked = unpacked > 0 ? 1 - static_cast<double>(r.tokens) / unpacked : 0;
  if (r.untrained < r.samples) r.padding_packed = Packed(samples, all, options).padding();
  return r;
}

std::string to_string(const DataReport& r) {
  std::string columns;
  for (const std::string& c : r.columns) columns += (columns.empty() ? "" : ", ") + c;
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  std::string s =
      fmt::format("format   {} (columns {})\nsamples  {}, {} tokens, {:.1f} % of them trained\n",
                  r.layout, columns, r.samples, r.tokens, share(r.trained, r.tokens));
  s += fmt::format("lengths  min {}, median {}, 90 % {}, 99 % {}, max {}\n", r.length[0],
                   r.length[1], r.length[2], r.length[3], r.length[4]);
  s += fmt::format("packing  padding {:.1f} % -> {:.1f} %\n", 100 * r.padding_unpacked,
                   100 * r.padding_packed);
  if (r.cut)
    s += fmt::format(
        "warning  {} samples ({:.1f} %) are longer than {} tokens and are cut; raise --seq-len\n",
        r.cut, share(r.cut, r.samples), r.seq_len);
  if (r.empty_answers)
    s += fmt::format(
        "warning  {} samples have an empty answer; the model learns to say nothing there\n",
        r.empty_answers);
  if (r.open_turns)
    s += fmt::format(
        "warning  {} samples do not end their last answer with an end-of-turn token: the chat "
        "template leaves it out, and the model will not learn to stop\n",
        r.open_turns);
  if (r.untrained)
    s += fmt::format("warning  {} samples have no token to train on and are left out\n",
                     r.untrained);
  return s;
}

}  // namespace supersonic::text
