// Character classes for PCRE2 that mean what our category table says, whatever Unicode version
// PCRE2 was built with: its own property where the two agree, with the characters that it does not
// know yet added, and plain ranges where it says too much. (Ranges alone would do; but a property
// is one table look-up, and all letters are 700 ranges.)
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace supersonic::text {

// "L", "Nd", … as a mask of categories; 0 when it is not a category.
uint32_t category_by_name(std::string_view name);

// What stands between brackets for the characters in (or, negated, outside) `mask`.
std::string category_items(uint32_t mask, bool negate);
// The same for \w as Oniguruma has it: letters, marks, decimal and letter numbers, connectors,
// circled letters, and of the other numbers only Latin-1's.
std::string word_items(bool negate);
bool is_regex_word(uint32_t code);

}  // namespace supersonic::text
