// Hand-written scanners for the pre-tokenizer patterns that most models use: same pieces as the
// regular expression, about ten times faster. `find_scanner` knows a pattern by its text; tests
// compare each scanner with PCRE2 on random text.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace supersonic::text {

// Where the piece that starts at p ends. [p, end) is valid UTF-8 and not empty; `categories` is
// category_table().
using Scanner = const char* (*)(const char* p, const char* end, const uint8_t* categories);

// The scanner for a pattern whose matches cover any text without gaps; null when there is none.
Scanner find_scanner(std::string_view pattern);

// The matches of a pattern that groups digits from the end of their run; a backtracking engine
// would look at the rest of the run from every group. Null when `pattern` is none of them.
using Matcher = void (*)(std::string_view text, std::vector<Match>& out);
Matcher find_matcher(std::string_view pattern);

extern const std::string_view kDigitGroupsPattern, kWordDigitGroupsPattern, kDigitCutsPattern;
extern const std::string_view kGpt2Pattern, kLlama3Pattern, kQwen2Pattern, kQwen35Pattern,
    kO200kPattern, kTekkenPattern;

}  // namespace supersonic::text
