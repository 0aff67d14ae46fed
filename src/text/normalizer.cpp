// The steps. Unicode forms work on whole texts; with a mask they work on stretches (a run of non-ASCII characters with the
// character before it), since ASCII before ASCII never changes.
#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

// One rebuilt text with its mask.
struct Builder {
  std::string text;
  TrustMask mask;
  bool masked;
  void add(std::string_view part, bool trusted) {
    text += part;
    if (masked) mask.insert(mask.end(), part.size(), trusted);
  }
  void copy(std::string_view part, const TrustMask* from, size_t at) {
    text += part;
    if (masked) mask.insert(mask.end(), from->begin() + at, from->begin() + at + part.size());
  }
  void finish(std::string& out, TrustMask* out_mask) {
    out = std::move(text);
    if (out_mask) *out_mask = std::move(mask);
  }
};

bool all_trusted(const TrustMask* mask, size_t begin, size_t end) {
  return mask && std::all_of(mask->begin() + begin, mask->begin() + end, [](uint8_t t) { return t; });
}

std::string unicode_form(std::string_view text, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  CHECK(size >= 0, "normalizer: {}", utf8proc_errmsg(size));
  std::string out(reinterpret_cast<char*>(mapped), static_cast<size_t>(size));
  std::free(mapped);
  return out;
}

bool ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

void unicode(std::string& text, TrustMask* mask, int options) {
  if (ascii(text)) return;
  if (!mask) {
    text = unicode_form(text, options);
    return;
  }
  Builder out{.text = {}, .mask = {}, .masked = true};
  const auto plain = [&](size_t i) { return static_cast<signed char>(text[i]) >= 0; };
  for (size_t i = 0; i < text.size();) {
    size_t j = i;
    while (j < text.size() && plain(j) && (j + 1 == text.size() || plain(j + 1))) ++j;
    out.copy(std::string_view(text).substr(i, j - i), mask, i);
    i = j;
    if (j < text.size() && plain(j)) ++j;
    while (j < text.size() && !plain(j)) ++j;
    if (j > i) out.add(unicode_form(std::string_view(text).substr(i, j - i), options), all_trusted(mask, i, j));
    i = j;
  }
  out.finish(text, mask);
}

// Rewrites character by character: map(code, out) appends what the character becomes.
template <class Map>
void each_character(std::string& text, TrustMask* mask, Map map) {
  Builder out{.text = {}, .mask = {}, .masked = mask != nullptr};
  const char *begin = text.data(), *end = begin + text.size();
  std::string piece;
  for (const char* p = begin; p < end;) {
    const size_t at = p - begin;
    piece.clear();
    map(next_code(p), piece);
    out.add(piece, all_trusted(mask, at, p - begin));
  }
  out.finish(text, mask);
}

void lower(uint32_t code, std::string& out) {
  if (code == 0x130)
    out += "i\xCC\x87";  // the only character whose lower case is two
  else
    append_utf8(out, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}

void strip(std::string& text, TrustMask* mask, bool left, bool right) {
  const char *begin = text.data(), *end = begin + text.size();
  const char *first = begin, *last = end;
  while (right && last > first && is_in(code_at(previous_char(last)), kSpace)) last = previous_char(last);
  while (left && first < last && is_in(code_at(first), kSpace)) next_code(first);
  const size_t from = first - begin, count = last - first;
  if (mask) *mask = TrustMask(mask->begin() + from, mask->begin() + from + count);
  text = text.substr(from, count);
}

void prepend(std::string& text, TrustMask* mask, const std::string& content) {
  if (text.empty()) return;
  if (mask) mask->insert(mask->begin(), content.size(), mask->front());
  text.insert(0, content);
}

void replace(std::string& text, TrustMask* mask, const NormalizerStep& spec, const std::optional<Regex>& regex) {
  std::vector<Match> matches;
  if (regex) {
    regex->find_all(text, matches);
  } else if (!spec.pattern.text.empty()) {
    const std::string& what = spec.pattern.text;
    for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += what.size()) matches.push_back({at, at + what.size()});
  }
  if (matches.empty()) return;
  Builder out{.text = {}, .mask = {}, .masked = mask != nullptr};
  out.text.reserve(text.size() + matches.size() * spec.content.size());
  const std::string_view view = text;
  size_t at = 0;
  for (const Match& m : matches) {
    out.copy(view.substr(at, m.begin - at), mask, at);
    out.add(spec.content, m.begin < m.end && all_trusted(mask, m.begin, m.end));
    at = m.end;
  }
  out.copy(view.substr(at), mask, at);
  out.finish(text, mask);
}

}  // namespace

Normalizer::Normalizer(const std::vector<NormalizerStep>& steps) {
  for (const NormalizerStep& spec : steps) {
    Step step{.spec = spec, .regex = std::nullopt};
    if (spec.kind == NormalizerStep::replace && spec.pattern.regex)
      step.regex.emplace(spec.pattern.text, "normalizer.pattern");
    steps_.push_back(std::move(step));
  }
}

void Normalizer::apply(std::string& text, TrustMask* mask) const {
  for (const Step& step : steps_) {
    switch (step.spec.kind) {
      case NormalizerStep::nfc: unicode(text, mask, UTF8PROC_COMPOSE); break;
      case NormalizerStep::nfd: unicode(text, mask, UTF8PROC_DECOMPOSE); break;
      case NormalizerStep::nfkc: unicode(text, mask, UTF8PROC_COMPOSE | UTF8PROC_COMPAT); break;
      case NormalizerStep::nfkd: unicode(text, mask, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT); break;
      case NormalizerStep::lowercase: each_character(text, mask, lower); break;
      case NormalizerStep::strip: strip(text, mask, step.spec.left, step.spec.right); break;
      case NormalizerStep::strip_accents:
        each_character(text, mask, [](uint32_t c, std::string& out) {
          if (!is_in(c, kMark)) append_utf8(out, c);
        });
        break;
      case NormalizerStep::prepend: prepend(text, mask, step.spec.content); break;
      case NormalizerStep::replace: replace(text, mask, step.spec, step.regex); break;
      case NormalizerStep::byte_level:
        if (mask) {
          Builder out{.text = {}, .mask = {}, .masked = true};
          for (size_t i = 0; i < text.size(); ++i) {
            std::string mapped;
            append_byte_mapped(mapped, std::string_view(text).substr(i, 1));
            out.add(mapped, (*mask)[i]);
          }
          out.finish(text, mask);
        } else {
          std::string mapped;
          append_byte_mapped(mapped, text);
          text = std::move(mapped);
        }
        break;
    }
  }
}

}  // namespace supersonic::text
