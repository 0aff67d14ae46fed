// The one file that instantiates fmt's formatting into plain memory; see the header.
#include "core/format_into.h"

#include <fmt/format.h>

namespace supersonic {

std::size_t vformat_into(char* out, std::size_t room, fmt::string_view format,
                         fmt::format_args args) {
  return fmt::vformat_to_n(out, room, format, args).size;
}

}  // namespace supersonic
