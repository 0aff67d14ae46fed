// "Did you mean": the word that somebody who wrote another one most likely meant.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace supersonic {

// The entry of `words` nearest to `word` by edits, or empty when none is near enough to be meant.
std::string nearest(std::string_view word, std::span<const std::string> words);

}  // namespace supersonic
