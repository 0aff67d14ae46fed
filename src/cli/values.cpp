// Reading and printing option values, and the edit distance behind "did you mean".
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "cli/options.h"

namespace supersonic::cli {
namespace {

template <class T>
bool parse_number(std::string_view text, T& out) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return false;
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) return false;
  }
  out = value;
  return true;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// Edits (insert, delete, replace, swap of neighbours) that turn a into b: Damerau-Levenshtein,
// optimal string alignment.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

bool parse_value(std::string_view text, int& out) { return parse_number(text, out); }
bool parse_value(std::string_view text, std::int64_t& out) { return parse_number(text, out); }
bool parse_value(std::string_view text, std::uint64_t& out) { return parse_number(text, out); }
bool parse_value(std::string_view text, float& out) { return parse_number(text, out); }
bool parse_value(std::string_view text, double& out) { return parse_number(text, out); }
bool parse_value(std::string_view text, std::string& out) { return out.assign(text), true; }
bool parse_value(std::string_view text, std::vector<std::string>& out) {
  out.emplace_back(text);
  return true;
}

bool parse_value(std::string_view text, bool& out) {
  const std::string word = lower(text);
  for (const char* yes : {"true", "1", "yes", "on"})
    if (word == yes) return out = true, true;
  for (const char* no : {"false", "0", "no", "off"})
    if (word == no) return out = false, true;
  return false;
}

bool parse_value(std::string_view text, Bytes& out) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  double value = 0;
  if (!parse_number(text.substr(0, digits), value)) return false;
  std::string unit = lower(text.substr(digits));
  if (!unit.empty() && unit[0] == ' ') unit.erase(0, 1);
  constexpr std::string_view units = "kmgt";
  if (!unit.empty() && unit != "b") {
    const std::size_t power = units.find(unit[0]);
    const std::string_view tail = std::string_view(unit).substr(1);
    if (power == std::string_view::npos || (!tail.empty() && tail != "b" && tail != "ib"))
      return false;
    value = std::ldexp(value, static_cast<int>(10 * (power + 1)));
  }
  if (value >= 0x1p63) return false;
  out.count = static_cast<std::uint64_t>(value);
  return true;
}

std::string print_value(bool value) { return value ? "true" : "false"; }
std::string print_value(int value) { return fmt::to_string(value); }
std::string print_value(std::int64_t value) { return fmt::to_string(value); }
std::string print_value(std::uint64_t value) { return fmt::to_string(value); }
std::string print_value(float value) { return fmt::format("{}", value); }
std::string print_value(double value) { return fmt::format("{}", value); }
std::string print_value(const std::string& value) { return value; }
std::string print_value(const std::vector<std::string>& value) {
  return fmt::format("{}", fmt::join(value, ","));
}

std::string print_value(Bytes value) {
  constexpr const char* units[] = {"", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (unit < 4 && value.count && value.count % 1024 == 0) value.count /= 1024, ++unit;
  return fmt::format("{}{}", value.count, units[unit]);
}

std::string nearest(std::string_view word, std::span<const std::string> words) {
  std::string best;
  std::size_t fewest = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : words) {
    const bool prefix = word.size() >= 3 && candidate.starts_with(word);
    const std::size_t distance = prefix ? 1 : edits(word, candidate);
    if (distance >= candidate.size()) continue;  // nothing of it is left
    if (distance < fewest) fewest = distance, best = candidate;
  }
  return best;
}

}  // namespace supersonic::cli
