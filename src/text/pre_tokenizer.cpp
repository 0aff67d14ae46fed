// Splitting by delimiters follows the `tokenizers` crate: first the list of matches and gaps, then
// the behaviour decides which neighbours join; empty parts vanish.
#include "text/pre_tokenizer.h"

#include <algorithm>
#include <iterator>

#include "text/unicode.h"

namespace supersonic::text {
namespace {

struct Part {
  size_t begin, end;
  bool match;
};

void add_gaps(const std::vector<Match>& matches, size_t size, std::vector<Part>& parts) {
  size_t at = 0;
  for (const Match& m : matches) {
    if (m.begin > at) parts.push_back({at, m.begin, false});
    parts.push_back({m.begin, m.end, true});
    at = m.end;
  }
  if (at < size) parts.push_back({at, size, false});
}

// Every character that `test` accepts is one match.
template <class Test>
void match_characters(std::string_view text, std::vector<Match>& out, Test test) {
  const char* begin = text.data();
  for (const char *p = begin, *end = begin + text.size(); p < end;) {
    const char* q = p;
    if (test(next_code(q))) out.push_back({size_t(p - begin), size_t(q - begin)});
    p = q;
  }
}

void match_literal(std::string_view text, std::string_view what, std::vector<Match>& out) {
  if (what.empty()) return;
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += what.size())
    out.push_back({at, at + what.size()});
}

// \w+|[^\w\s]+
void match_words(std::string_view text, std::vector<Match>& out) {
  const char *begin = text.data(), *end = begin + text.size();
  const auto kind = [](uint32_t c) { return is_word(c) ? 1 : is_in(c, kSpace) ? 0 : 2; };
  for (const char* p = begin; p < end;) {
    const char* start = p;
    const int first = kind(next_code(p));
    if (first == 0) continue;
    while (p < end && kind(code_at(p)) == first) next_code(p);
    out.push_back({size_t(start - begin), size_t(p - begin)});
  }
}

// Kana and the sound mark count as Han, a space stands beside all (SentencePiece's rule): the table
// has it so.
uint32_t script_group(uint32_t code) {
  const uint32_t* end = kScriptRuns + kScriptRunCount;
  return std::prev(std::upper_bound(kScriptRuns, end, code << 8 | 0xFF))[0] & 0xFF;
}

bool is_punctuation(uint32_t c) {
  if (c < 128)
    return (c > 32 && c < 48) || (c > 57 && c < 65) || (c > 90 && c < 97) || (c > 122 && c < 127);
  return is_in(c, kPunctuation) != in_ranges(c, kOtherPunctuation);
}

// Joins matches with their neighbours, in place; removed ones are dropped.
void apply(Behavior behavior, std::vector<Part>& parts) {
  std::vector<Part> out;
  bool previous = false;
  if (behavior == Behavior::removed) {
    std::erase_if(parts, [](const Part& p) { return p.match; });
    return;
  }
  if (behavior == Behavior::isolated) return;
  if (behavior == Behavior::merged_with_next) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->match && !previous && !out.empty())
        out.back().begin = part->begin;
      else
        out.push_back(*part);
      previous = part->match;
    }
    std::reverse(out.begin(), out.end());
  } else {
    for (const Part& part : parts) {
      const bool join =
          behavior == Behavior::contiguous ? part.match == previous : part.match && !previous;
      if (join && !out.empty())
        out.back().end = part.end;
      else
        out.push_back(part);
      previous = part.match;
    }
  }
  parts = std::move(out);
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreStep> steps, bool raw_bytes) : raw_bytes_(raw_bytes) {
  for (PreStep& spec : steps) {
    Step step{
        .spec = std::move(spec), .scanner = nullptr, .matcher = nullptr, .regex = std::nullopt};
    const PreStep& s = step.spec;
    if (s.kind == PreStep::split && s.pattern.regex) {
      const bool covers =
          s.behavior == Behavior::isolated || (s.behavior == Behavior::removed && s.invert);
      if (covers) step.scanner = find_scanner(s.pattern.text);
      step.matcher = find_matcher(s.pattern.text);
      if (!step.scanner && !step.matcher)
        step.regex.emplace(s.pattern.text, "pre_tokenizer.pattern");
    }
    if (s.kind == PreStep::byte_level && s.use_regex) step.scanner = find_scanner(kGpt2Pattern);
    steps_.push_back(std::move(step));
  }
}

bool PreTokenizer::asks_for_start() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& s) {
    return s.spec.kind == PreStep::metaspace && s.spec.prepend == PrependScheme::first;
  });
}

void PreTokenizer::split(Stretch in, bool at_start, WordSink& sink) const {
  run(0, in, at_start, sink);
}

void PreTokenizer::run(size_t step, Stretch in, bool at_start, WordSink& sink) const {
  if (in.text.empty()) return;
  if (step == steps_.size()) return sink.word(in);
  const Step& s = steps_[step];
  switch (s.spec.kind) {
    case PreStep::split:
      if (s.scanner) return scan(step + 1, in, at_start, sink, s.scanner);
      return cut(step, in, at_start, sink, s.spec.behavior);
    case PreStep::byte_level:
      return byte_level(step, in, at_start, sink);
    case PreStep::metaspace:
      return metaspace(step, in, at_start, sink);
    case PreStep::digits:
      return cut(step, in, at_start, sink,
                 s.spec.individual ? Behavior::isolated : Behavior::contiguous);
    case PreStep::punctuation:
      return cut(step, in, at_start, sink, s.spec.behavior);
    case PreStep::whitespace:
    case PreStep::whitespace_split:
      return cut(step, in, at_start, sink, Behavior::removed);
    case PreStep::scripts:
      return scripts(step + 1, in, at_start, sink);
    case PreStep::fixed_length:
      return fixed_length(step + 1, in, at_start, sink, s.spec.length);
  }
}

void PreTokenizer::scan(size_t next, Stretch in, bool at_start, WordSink& sink,
                        Scanner scanner) const {
  const uint8_t* categories = category_table();
  const char *begin = in.text.data(), *p = begin, *end = p + in.text.size();
  while (p < end) {
    const char* q = scanner(p, end, categories);
    run(next, in.part(p - begin, q - begin), at_start, sink);
    at_start = false;
    p = q;
  }
}

// A cut stands where the group of scripts changes, and before the first character that has one:
// what is neutral in front of it is dropped, as the crate does.
void PreTokenizer::scripts(size_t next, Stretch in, bool at_start, WordSink& sink) const {
  const char *text = in.text.data(), *end = text + in.text.size();
  size_t begin = in.text.npos;
  uint32_t last = 0;
  for (const char* p = text; p < end;) {
    const size_t at = static_cast<size_t>(p - text);
    const uint32_t group = script_group(next_code(p));
    if (!group) continue;
    if (group != last) {
      if (begin != in.text.npos) run(next, in.part(begin, at), at_start && begin == 0, sink);
      begin = at;
    }
    last = group;
  }
  if (begin != in.text.npos)
    run(next, in.part(begin, in.text.size()), at_start && begin == 0, sink);
}

void PreTokenizer::fixed_length(size_t next, Stretch in, bool at_start, WordSink& sink,
                                uint32_t length) const {
  const char *text = in.text.data(), *end = text + in.text.size();
  for (const char* p = text; p < end;) {
    const char* begin = p;
    for (uint32_t n = 0; n < length && p < end; ++n) next_code(p);
    run(next, in.part(begin - text, p - text), at_start && begin == text, sink);
  }
}

void PreTokenizer::cut(size_t step, Stretch in, bool at_start, WordSink& sink,
                       Behavior behavior) const {
  const Step& s = steps_[step];
  std::vector<Match> matches;
  switch (s.spec.kind) {
    case PreStep::split:
      if (s.matcher)
        s.matcher(in.text, matches);
      else if (s.regex)
        s.regex->find_all(in.text, matches);
      else
        match_literal(in.text, s.spec.pattern.text, matches);
      break;
    case PreStep::digits:
      match_characters(in.text, matches,
                       [](uint32_t c) { return is_in(c, kNumber) != in_ranges(c, kOtherNumbers); });
      break;
    case PreStep::punctuation:
      match_characters(in.text, matches, is_punctuation);
      break;
    case PreStep::whitespace:
      match_words(in.text, matches);
      break;
    default:
      match_characters(in.text, matches, [](uint32_t c) { return is_in(c, kSpace); });
  }
  const bool invert =
      s.spec.kind == PreStep::whitespace || (s.spec.kind == PreStep::split && s.spec.invert);
  if (matches.empty() && !invert) return run(step + 1, in, at_start, sink);
  std::vector<Part> parts;
  add_gaps(matches, in.text.size(), parts);
  if (invert)
    for (Part& part : parts) part.match = !part.match;
  apply(behavior, parts);
  for (const Part& part : parts)
    run(step + 1, in.part(part.begin, part.end), at_start && part.begin == 0, sink);
}

void PreTokenizer::metaspace(size_t step, Stretch in, bool at_start, WordSink& sink) const {
  const PreStep& spec = steps_[step].spec;
  const bool prepend =
      spec.prepend == PrependScheme::always || (spec.prepend == PrependScheme::first && at_start);
  Rewriter changed(in);
  changed.reserve(in.text.size() + in.text.size() / 4);
  if (prepend && in.text[0] != ' ' && !in.text.starts_with(spec.replacement))
    changed.insert(0, spec.replacement, true);
  for (size_t at = 0; at < in.text.size();) {
    const size_t space = std::min(in.text.find(' ', at), in.text.size());
    changed.copy(at, space);
    if (space < in.text.size()) changed.replace(space, space + 1, spec.replacement);
    at = space + 1;
  }
  const Stretch out = changed.stretch();
  if (!spec.split_words) return run(step + 1, out, at_start, sink);
  std::vector<Match> matches;
  match_literal(out.text, spec.replacement, matches);
  std::vector<Part> parts;
  add_gaps(matches, out.text.size(), parts);
  apply(Behavior::merged_with_next, parts);
  for (const Part& part : parts)
    run(step + 1, out.part(part.begin, part.end), at_start && part.begin == 0, sink);
}

void PreTokenizer::byte_level(size_t step, Stretch in, bool at_start, WordSink& sink) const {
  const Step& s = steps_[step];
  Rewriter prefixed(in);
  if (s.spec.add_prefix_space && in.text[0] != ' ') {
    prefixed.reserve(in.text.size() + 1);
    prefixed.insert(0, " ", true);
    prefixed.copy(0, in.text.size());
    in = prefixed.stretch();
  }
  const auto hand_on = [&](Stretch word) {
    if (raw_bytes_ && step + 1 == steps_.size()) return sink.word(word);
    Rewriter mapped(word);
    std::string letter;
    for (size_t i = 0; i < word.text.size(); ++i) {
      letter.clear();
      append_byte_mapped(letter, word.text.substr(i, 1));
      mapped.replace(i, i + 1, letter);
    }
    run(step + 1, mapped.stretch(), at_start, sink);
    at_start = false;
  };
  if (!s.scanner) return hand_on(in);
  const uint8_t* categories = category_table();
  const char* begin = in.text.data();
  for (const char *p = begin, *end = p + in.text.size(); p < end;) {
    const char* q = s.scanner(p, end, categories);
    hand_on(in.part(p - begin, q - begin));
    p = q;
  }
}

}  // namespace supersonic::text
