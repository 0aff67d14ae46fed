// Decoding token by token. Steps up to the first that joins all tokens (ByteLevel, Fuse) work on
// tokens, later ones on parts of the one joined token; what a step cannot decide on a part it holds
// back, in the worst case to the end.
#include <algorithm>

#include "text/decoder.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

// How many bytes of `text` end in what may become a character with more bytes (0 to 3).
size_t incomplete_tail(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const size_t at = text.size() - back;
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;
    return utf8_step(text.substr(at)).kind == Utf8Step::incomplete ? back : 0;
  }
  return 0;
}

// How many bytes at the end of `text` may be the beginning of `what`.
size_t begun(std::string_view text, std::string_view what) {
  for (size_t n = std::min(text.size(), what.size() - 1); n > 0; --n)
    if (what.starts_with(text.substr(text.size() - n))) return n;
  return 0;
}

bool joins(DecodeStep::Kind kind) {
  return kind == DecodeStep::byte_level || kind == DecodeStep::fuse;
}

}  // namespace

Decoding::Decoding(const Decoder& decoder) : decoder_(&decoder) {
  bool joined = false;
  for (const Decoder::Step& step : decoder.steps_) {
    stages_.push_back({.held = {}, .seen = 0, .joined = joined, .cut = 0});
    joined = joined || joins(step.spec.kind);
  }
}

void Decoding::push(std::string_view token, std::string& out) {
  if (stages_.empty() && pushed_) out += ' ';
  ++pushed_;
  feed(0, token, out);
}

void Decoding::finish(std::string& out) {
  for (size_t at = 0; at < stages_.size(); ++at) flush(at, out);
}

// Gives `token` to the step at `at`, which hands what it makes of it to the next.
void Decoding::feed(size_t at, std::string_view token, std::string& out) {
  if (at == stages_.size()) return void(out += token);
  const Decoder::Step& step = decoder_->steps_[at];
  Stage& stage = stages_[at];
  if (stage.joined) return feed_joined(at, token, out);
  const bool first = stage.seen++ == 0;
  std::vector<std::string> tokens;
  switch (step.spec.kind) {
    case DecodeStep::byte_level:
    case DecodeStep::byte_fallback:
      return feed_bytes(at, token, out);
    case DecodeStep::fuse:
      return feed(at + 1, token, out);
    case DecodeStep::suffix:  // the last token loses its suffix, the others get a space for it
      if (!first) {
        tokens = {std::move(stage.held), ""};
        Decoder::apply(step, tokens);
        stage.held = token;
        return feed(at + 1, tokens[0], out);
      }
      return void(stage.held = token);
    case DecodeStep::ctc:
      if (!first && token == stage.held) return;
      stage.held = token;
      break;
    case DecodeStep::metaspace:
    case DecodeStep::word_piece:
      if (!first) tokens.emplace_back("x");  // takes the first token's place
      break;
    case DecodeStep::replace:
    case DecodeStep::strip:
      break;
  }
  tokens.emplace_back(token);
  const size_t before = tokens.size();
  Decoder::apply(step, tokens);
  if (before == tokens.size()) feed(at + 1, tokens.back(), out);
}

void Decoding::feed_bytes(size_t at, std::string_view token, std::string& out) {
  std::string& held = stages_[at].held;
  if (decoder_->steps_[at].spec.kind == DecodeStep::byte_level) {
    std::string bytes;
    held += unmap_bytes(token, bytes) ? std::string_view(bytes) : token;
    const size_t ready = held.size() - incomplete_tail(held);
    const std::string text = repair_utf8(std::string_view(held).substr(0, ready));
    held.erase(0, ready);
    if (!text.empty()) feed(at + 1, text, out);
    return;
  }
  const int byte = byte_of_token(token);
  if (byte < 0) {
    flush(at, out);
    return feed(at + 1, token, out);
  }
  held += static_cast<char>(byte);
  if (at + 1 < stages_.size() && decoder_->steps_[at + 1].spec.kind != DecodeStep::fuse)
    return;  // a step that works on tokens sees the run as one
  while (!held.empty()) {
    const Utf8Step step = utf8_step(held);
    if (step.kind == Utf8Step::incomplete) return;
    const std::string text = held.substr(0, step.bytes);
    held.erase(0, step.bytes);
    if (step.kind == Utf8Step::valid)
      feed(at + 1, text, out);
    else
      for (size_t i = 0; i < text.size(); ++i) feed(at + 1, kReplacement, out);
  }
}

// `part` goes on with the one token that an earlier step has joined.
void Decoding::feed_joined(size_t at, std::string_view part, std::string& out) {
  const Decoder::Step& step = decoder_->steps_[at];
  Stage& stage = stages_[at];
  if (part.empty()) return;
  if (step.spec.kind == DecodeStep::fuse) return feed(at + 1, part, out);
  if (step.spec.kind == DecodeStep::strip) return strip_joined(at, part, out);
  if (step.spec.kind == DecodeStep::metaspace) {  // character by character
    std::vector<std::string> tokens = {std::string(part)};
    Decoder::apply(step, tokens);
    return feed(at + 1, tokens[0], out);
  }
  stage.held += part;
  const std::string& what = step.spec.pattern.text;
  if (step.spec.kind != DecodeStep::replace || step.regex || what.empty())
    return;  // decided at the end
  std::string text;
  size_t done = 0;
  for (size_t found; (found = stage.held.find(what, done)) != stage.held.npos;) {
    text.append(stage.held, done, found - done).append(step.spec.content);
    done = found + what.size();
  }
  const size_t ready = stage.held.size() - begun(std::string_view(stage.held).substr(done), what);
  text.append(stage.held, done, ready - done);
  stage.held.erase(0, ready);
  if (!text.empty()) feed(at + 1, text, out);
}

void Decoding::strip_joined(size_t at, std::string_view part, std::string& out) {
  const DecodeStep& spec = decoder_->steps_[at].spec;
  const std::string_view what = spec.content;
  Stage& stage = stages_[at];
  while (!stage.seen && stage.cut < spec.start && part.starts_with(what)) {
    part.remove_prefix(what.size());
    ++stage.cut;
  }
  if (part.empty()) return;
  stage.seen = 1;
  stage.held += part;
  size_t ready = stage.held.size();  // what ends the text may be cut off there
  for (uint32_t n = 0; n < spec.stop; ++n) {
    if (!std::string_view(stage.held).substr(0, ready).ends_with(what)) break;
    ready -= what.size();
  }
  const std::string text = stage.held.substr(0, ready);
  stage.held.erase(0, ready);
  if (!text.empty()) feed(at + 1, text, out);
}

void Decoding::flush(size_t at, std::string& out) {
  const Decoder::Step& step = decoder_->steps_[at];
  Stage& stage = stages_[at];
  std::vector<std::string> tokens;
  if (stage.held.empty() && step.spec.kind != DecodeStep::suffix) return;
  const std::string held = std::move(stage.held);
  stage.held.clear();
  if (stage.joined) {
    if (step.spec.kind == DecodeStep::strip) return;  // what was held is what it cuts off
    tokens = {held};
    Decoder::apply(step, tokens);
  } else if (step.spec.kind == DecodeStep::byte_level) {
    tokens = {repair_utf8(held)};
  } else if (step.spec.kind == DecodeStep::byte_fallback) {
    if (valid_utf8(held))
      tokens = {held};
    else
      tokens.assign(held.size(), kReplacement);
  } else if (step.spec.kind == DecodeStep::suffix && stage.seen) {
    tokens = {held};
    Decoder::apply(step, tokens);
  }
  for (const std::string& token : tokens) feed(at + 1, token, out);
}

}  // namespace supersonic::text
