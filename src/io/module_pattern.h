// PEFT's way of giving some modules another rank or alpha: a pattern names modules from the right,
// at a dot.
#pragma once
#include <string_view>

namespace supersonic::io {

// Does pattern, a regular expression, match the whole module path or a part of it that follows a
// dot? Error(bad_file) when the expression does not compile; matching is bounded and gives false
// when the bound is hit.
bool matches_module(std::string_view pattern, std::string_view module);

}  // namespace supersonic::io
