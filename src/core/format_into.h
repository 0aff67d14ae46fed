// Formats into memory that the caller has, without allocating. As fmt::format_to_n, whose header
// compiles all of fmt's formatting in every file that calls it (a second each): here it is compiled
// once.
#pragma once
#include <fmt/core.h>

#include <cstddef>

namespace supersonic {

std::size_t vformat_into(char* out, std::size_t room, fmt::string_view format,
                         fmt::format_args args);

// At most `room` bytes are written, no 0 after them; returns how many the whole text has.
template <class... Args>
std::size_t format_into(char* out, std::size_t room, fmt::format_string<Args...> format,
                        Args&&... args) {
  return vformat_into(out, room, format, fmt::make_format_args(args...));
}

}  // namespace supersonic
