// The decoder steps, on lists of token strings and on single tokens.
#include "text/decoder.h"

#include <algorithm>
#include <charconv>

#include "text/unicode.h"

namespace supersonic::text {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

std::string replace_all(std::string_view text, const Pattern& pattern,
                        const std::optional<Regex>& regex, std::string_view content) {
  std::vector<Match> matches;
  if (regex) {
    regex->find_all(text, matches);
  } else if (!pattern.text.empty()) {
    for (size_t at = 0; (at = text.find(pattern.text, at)) != text.npos; at += pattern.text.size())
      matches.push_back({at, at + pattern.text.size()});
  }
  std::string out;
  size_t at = 0;
  for (const Match& m : matches) {
    out.append(text.substr(at, m.begin - at)).append(content);
    at = m.end;
  }
  return out.append(text.substr(at));
}

std::string strip(std::string_view token, const DecodeStep& spec) {
  const std::string_view what = spec.content;
  for (uint32_t i = 0; i < spec.start && !what.empty() && token.starts_with(what); ++i)
    token.remove_prefix(what.size());
  for (uint32_t i = 0; i < spec.stop && !what.empty() && token.ends_with(what); ++i)
    token.remove_suffix(what.size());
  return std::string(token);
}

void byte_level(std::vector<std::string>& tokens) {
  std::string bytes, one;
  for (const std::string& token : tokens) {
    one.clear();
    bytes += unmap_bytes(token, one) ? one : token;
  }
  tokens = {repair_utf8(bytes)};
}

void byte_fallback(std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (valid_utf8(bytes))
      out.push_back(bytes);
    else
      out.insert(out.end(), bytes.size(), kReplacement);
    bytes.clear();
  };
  for (std::string& token : tokens) {
    const int byte = byte_of_token(token);
    if (byte >= 0) {
      bytes += static_cast<char>(byte);
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  tokens = std::move(out);
}

// The clean-up of BERT's and CTC's decoders, in the crate's order.
std::string cleaned(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules)
    text = replace_all(text, {.text = std::string(from), .regex = false}, std::nullopt, to);
  return text;
}

std::string word_piece(std::string_view token, const DecodeStep& spec, bool first) {
  std::string text;
  if (first)
    text = token;
  else if (token.starts_with(spec.content))
    text = token.substr(spec.content.size());
  else
    text.append(" ").append(token);
  return spec.cleanup ? cleaned(std::move(text)) : text;
}

std::string ctc(std::string_view token, const DecodeStep& spec) {
  std::string text = replace_all(token, {.text = spec.content, .regex = false}, std::nullopt, "");
  if (!spec.cleanup) return text;
  return replace_all(cleaned(std::move(text)), {.text = spec.delimiter, .regex = false},
                     std::nullopt, " ");
}

std::string from_metaspace(std::string_view token, std::string_view replacement, bool drop) {
  return replace_all(token, {.text = std::string(replacement), .regex = false}, std::nullopt,
                     drop ? "" : " ");
}

}  // namespace

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  unsigned value = 0;  // unsigned: a minus sign is no digit
  const char* digits =
      token.data() + (token[3] == '+' ? 4 : 3);  // Rust's integer parser takes a sign
  const auto [end, error] = std::from_chars(digits, token.data() + 5, value, 16);
  return error == std::errc() && end == token.data() + 5 ? static_cast<int>(value) : -1;
}

Decoder::Decoder(const std::vector<DecodeStep>& steps) {
  for (const DecodeStep& spec : steps) {
    Step step{.spec = spec, .regex = std::nullopt};
    if (spec.kind == DecodeStep::replace && spec.pattern.regex)
      step.regex.emplace(spec.pattern.text, "decoder.pattern");
    steps_.push_back(std::move(step));
  }
}

void Decoder::apply(const Step& step, std::vector<std::string>& tokens) {
  const DecodeStep& spec = step.spec;
  switch (spec.kind) {
    case DecodeStep::byte_level:
      return byte_level(tokens);
    case DecodeStep::byte_fallback:
      return byte_fallback(tokens);
    case DecodeStep::replace:
      for (std::string& token : tokens)
        token = replace_all(token, spec.pattern, step.regex, spec.content);
      return;
    case DecodeStep::fuse: {
      std::string all;
      for (const std::string& token : tokens) all += token;
      tokens = {std::move(all)};
      return;
    }
    case DecodeStep::strip:
      for (std::string& token : tokens) token = strip(token, spec);
      return;
    case DecodeStep::metaspace:
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] =
            from_metaspace(tokens[i], spec.content, i == 0 && spec.prepend != PrependScheme::never);
      return;
    case DecodeStep::suffix:
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = replace_all(tokens[i], {.text = spec.content, .regex = false}, std::nullopt,
                                i + 1 == tokens.size() ? "" : " ");
      return;
    case DecodeStep::word_piece:
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = word_piece(tokens[i], spec, i == 0);
      return;
    case DecodeStep::ctc:
      tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
      for (std::string& token : tokens) token = ctc(token, spec);
      std::erase(tokens, "");
      return;
  }
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  if (tokens.empty()) return {};
  if (steps_.empty()) {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) out.append(i ? " " : "").append(tokens[i]);
    return out;
  }
  for (const Step& step : steps_) apply(step, tokens);
  std::string out;
  for (const std::string& token : tokens) out += token;
  return out;
}

std::string Decoder::piece(std::string_view token) const {
  std::string text(token);
  for (const Step& step : steps_) {
    const DecodeStep& spec = step.spec;
    switch (spec.kind) {
      case DecodeStep::byte_level:
        if (std::string bytes; unmap_bytes(text, bytes)) text = std::move(bytes);
        return text;  // bytes from here on
      case DecodeStep::byte_fallback:
        if (const int byte = byte_of_token(text); byte >= 0)
          return std::string(1, static_cast<char>(byte));
        break;
      case DecodeStep::replace:
        text = replace_all(text, spec.pattern, step.regex, spec.content);
        break;
      case DecodeStep::fuse:
        return text;  // later steps see the whole text
      case DecodeStep::strip:
        text = strip(text, spec);
        break;
      case DecodeStep::metaspace:
        text = from_metaspace(text, spec.content, false);
        break;
      case DecodeStep::suffix:
        text = replace_all(text, {.text = spec.content, .regex = false}, std::nullopt, " ");
        break;
      case DecodeStep::word_piece:
        text = word_piece(text, spec, false);
        break;
      case DecodeStep::ctc:
        text = ctc(text, spec);
        break;
    }
  }
  return text;
}

}  // namespace supersonic::text
