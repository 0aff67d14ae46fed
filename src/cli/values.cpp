// Reading and printing option values.
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

}  // namespace supersonic::cli
