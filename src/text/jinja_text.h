// Python's string operations on marked text: each keeps the origin of every byte.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_unicode.h"
#include "text/jinja_value.h"

namespace supersonic::text::jinja {

class Evaluator;
struct Args;

enum class Case : std::uint8_t { lower, upper, capitalize, title };
Text map_case(const Text& text, Case how);

// chars: the set of characters to strip; null: white space
Text strip(const Text& text, const std::string* chars, bool left, bool right);
// count < 0: all
Text replace_all(const Text& text, std::string_view from, const Text& to, std::int64_t count);

// Byte ranges of the pieces; limit < 0: no limit on the number of cuts.
std::vector<Trimmed> split_space(std::string_view s, std::int64_t limit);
std::vector<Trimmed> split_space_right(std::string_view s, std::int64_t limit);
std::vector<Trimmed> split_on(std::string_view s, std::string_view separator, std::int64_t limit);
std::vector<Trimmed> split_on_right(std::string_view s, std::string_view separator,
                                    std::int64_t limit);
std::vector<Trimmed> split_lines(std::string_view s);  // without the line ends

Text format_percent(Evaluator& e, const Text& format, const Args& args);  // 'a %s b' % args
Text format_braces(Evaluator& e, const Text& format, const Args& args);   // 'a {} b'.format(args)

}  // namespace supersonic::text::jinja
