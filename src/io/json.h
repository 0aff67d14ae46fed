// JSON from outside: nlohmann's parser behind limits. Size, depth and duplicate keys are checked
// while parsing, so a hostile document can neither exhaust the stack nor mean two things. Errors
// say file, line and column. This header is light (forward declarations only); a .cpp that looks
// inside a value includes <nlohmann/json.hpp>.
#pragma once
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace supersonic::io {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{64} << 20;
  int max_depth = 64;
  std::size_t max_values = std::size_t{4} << 20;  // every scalar, key, object and array counts one
};

// file is for messages only. Throws Error(bad_file).
nlohmann::json parse_json(std::string_view text, const std::string& file,
                          const JsonLimits& limits = {});
nlohmann::json read_json(const std::string& path, const JsonLimits& limits = {});

// "3:17", 1-based, of a byte offset.
std::string line_and_column(std::string_view text, std::size_t offset);

}  // namespace supersonic::io
