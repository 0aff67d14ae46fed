// Samples → text with trained ranges → tokens.
//
// Where an answer starts and ends comes from the one full rendering: bytes know which message wrote
// them. The start is moved back to what the template writes before an answer (<tool_call>, quotes)
// by rendering the conversation up to it with the generation prompt, as at inference; the end is
// moved on over what the template writes to end the turn.
#include <algorithm>

#include "core/error.h"
#include "text/dataset.h"
#include "text/jinja_unicode.h"

namespace supersonic::text {
namespace {

bool is_assistant(const Value& message) {
  const Value* role = message.as_dict().find("role");
  return role && role->is(Kind::string) &&
         (role->bytes() == "assistant" || role->bytes() == "model");
}

// [first byte, last byte + 1) that message i wrote; begin = end = npos when it wrote none.
ByteRange source_range(const Rendered& r, std::size_t message) {
  ByteRange out{std::string::npos, std::string::npos};
  std::size_t at = 0;
  for (const Run& run : r.runs) {
    if (run.mark.source == message + 1) {
      if (out.begin == std::string::npos) out.begin = at;
      out.end = run.end;
    }
    at = run.end;
  }
  return out;
}

// The first byte after `from` that the data wrote.
std::size_t next_data(const Rendered& r, std::size_t from) {
  for (const TextSpan& s : r.spans)
    if (!s.trusted && s.end > from) return std::max(s.begin, from);
  return r.text.size();
}

std::size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(
      std::mismatch(a.begin(),
                    a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())),
                    b.begin())
          .first -
      a.begin());
}

class AnswerFinder {
 public:
  AnswerFinder(const ChatTemplate& chat, ChatInput input, const Rendered& full)
      : chat_(chat), input_(std::move(input)), full_(full) {}

  // The trained bytes of message i, whose predecessors' bytes end at `floor`.
  ByteRange find(std::size_t i, std::size_t floor) {
    const ByteRange own = source_range(full_, i);
    const bool wrote = own.begin != std::string::npos;
    std::size_t begin = wrote ? own.begin : std::string::npos;
    const std::string prompt = render(i, true).text;
    const std::size_t shared = common_prefix(prompt, full_.text);
    // An equal prefix is the exact start; a template that changes earlier turns leaves only the
    // message's own bytes.
    if (shared >= floor && (shared == prompt.size() || shared <= begin))
      begin = std::min(begin, shared);
    if (begin == std::string::npos) return {floor, floor};
    std::size_t end = wrote ? own.end : begin;
    const std::size_t limit = next_data(full_, end);
    return {begin, turn_end(end, std::min(limit, end + closing(i, end, wrote)))};
  }

 private:
  // How many bytes after `end` belong to message i's turn: as many as agree with the conversation
  // that stops there.
  std::size_t closing(std::size_t i, std::size_t end, bool wrote) {
    const Rendered closed = render(i + 1, false);
    const std::size_t own = wrote ? source_range(closed, i).end : end;
    if (own > closed.text.size()) return 0;
    return common_prefix(std::string_view(full_.text).substr(end),
                         std::string_view(closed.text).substr(own));
  }

  Rendered render(std::size_t count, bool prompt) {
    input_.count = static_cast<std::int64_t>(count);
    input_.add_generation_prompt = prompt;
    try {
      return chat_.render(input_);
    } catch (const Error&) {
      return {};  // the template refuses this part on its own: nothing is learned from it
    }
  }

  // What the template wrote to end the turn: up to `limit`, without the white space that leads over
  // to the next one.
  std::size_t turn_end(std::size_t end, std::size_t limit) const {
    const std::string_view tail = std::string_view(full_.text).substr(end, limit - end);
    return end + trim_space(tail, false, true).end;
  }

  const ChatTemplate& chat_;
  ChatInput input_;
  const Rendered& full_;
};

bool has_content(const Value& message) {
  const Value* content = message.as_dict().find("content");
  if (const Value* calls = message.as_dict().find("tool_calls"); calls && truthy(*calls))
    return true;
  if (!content || !truthy(*content)) return false;
  if (!content->is(Kind::string)) return true;
  const Trimmed t = trim_space(content->bytes());
  return t.end > t.begin;
}

void add_range(std::vector<ByteRange>& ranges, ByteRange r) {
  if (r.begin >= r.end) return;
  if (!ranges.empty() && r.begin <= ranges.back().end) {
    ranges.back().end = std::max(ranges.back().end, r.end);
  } else {
    ranges.push_back(r);
  }
}

Marked mark_chat(const Sample& sample, const TokenizerView& tokenizer,
                 const RenderOptions& options) {
  CHECK_FILE(options.chat_template,
             "the data are conversations, but the model has no chat template; give one");
  ChatInput input;
  input.messages = sample.messages;
  input.tools = sample.tools;
  input.variables = options.variables;
  input.bos_token = tokenizer.bos_text;
  input.eos_token = tokenizer.eos_text;
  Rendered full = options.chat_template->render(input);
  Marked out;
  if (options.train_on_all) {
    add_range(out.trained, {0, full.text.size()});
  } else if (options.chat_template->marks_generation() && sample.trained_from == 0) {
    out.trained = full.generation;
  } else {
    AnswerFinder finder(*options.chat_template, input, full);
    const auto& messages = sample.messages.as_list().items;
    std::size_t floor = 0;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (is_assistant(messages[i]) && static_cast<std::int64_t>(i) >= sample.trained_from) {
        const ByteRange r = finder.find(i, floor);
        add_range(out.trained, r);
        floor = std::max(floor, r.end);
      }
      const ByteRange own = source_range(full, i);
      if (own.end != std::string::npos) floor = std::max(floor, own.end);
    }
  }
  out.text = std::move(full.text);
  out.spans = std::move(full.spans);
  return out;
}

void add_text(Marked& m, std::string_view text, bool trusted, bool trained) {
  const std::size_t begin = m.text.size();
  m.text += text;
  if (text.empty()) return;
  m.spans.push_back({begin, m.text.size(), trusted});
  if (trained) add_range(m.trained, {begin, m.text.size()});
}

bool in_ranges(const std::vector<ByteRange>& ranges, std::size_t byte) {
  const auto it = std::upper_bound(ranges.begin(), ranges.end(), byte,
                                   [](std::size_t b, const ByteRange& r) { return b < r.end; });
  return it != ranges.end() && it->begin <= byte;
}

// Whether the sample's last trained token ends a turn.
bool ends_turn(const Tokens& t, const TokenizerView& tokenizer) {
  for (std::size_t i = t.ids.size(); i-- > 0;)
    if (t.trained[i]) return tokenizer.is_end_of_turn(t.ids[i]);
  return true;
}

}  // namespace

Marked mark_sample(const Sample& sample, const TokenizerView& tokenizer,
                   const RenderOptions& options) {
  const bool chat = sample.type == Sample::Type::chat ||
                    (sample.type == Sample::Type::completion && options.chat_template);
  if (chat) return mark_chat(sample, tokenizer, options);
  Marked out;
  if (tokenizer.add_bos) add_text(out, tokenizer.bos_text, true, false);
  add_text(out, sample.prompt, false, options.train_on_all);
  add_text(out, sample.answer, false, true);
  add_text(out, tokenizer.eos_text, true, true);
  return out;
}

void tokenize_sample(const Sample& sample, const TokenizerView& tokenizer,
                     const RenderOptions& options, std::vector<Tokens>& out) {
  const Marked marked = mark_sample(sample, tokenizer, options);
  Encoded encoded;
  tokenizer.encode(marked.text, marked.spans, encoded);
  CHECK(encoded.ids.size() == encoded.ends.size(), "encode: {} ids but {} ends", encoded.ids.size(),
        encoded.ends.size());
  Tokens all;
  all.ids = std::move(encoded.ids);
  all.trained.resize(all.ids.size());
  for (std::size_t i = 0; i < all.ids.size(); ++i)
    all.trained[i] = encoded.ends[i] > 0 && in_ranges(marked.trained, encoded.ends[i] - 1);
  const auto limit = static_cast<std::size_t>(options.seq_len);
  if (sample.type == Sample::Type::text) {
    for (std::size_t at = 0; at < all.ids.size(); at += limit) {
      const auto from = static_cast<std::ptrdiff_t>(at),
                 to = static_cast<std::ptrdiff_t>(std::min(at + limit, all.ids.size()));
      Tokens piece;
      piece.ids.assign(all.ids.begin() + from, all.ids.begin() + to);
      piece.trained.assign(all.trained.begin() + from, all.trained.begin() + to);
      out.push_back(std::move(piece));
    }
    return;
  }
  all.open_turn = !ends_turn(all, tokenizer);
  for (const Value& m : sample.messages.as_list().items)
    all.empty_answer |= is_assistant(m) && !has_content(m);
  all.cut = all.ids.size() > limit;
  if (all.cut) {
    all.ids.resize(limit);
    all.trained.resize(limit);
  }
  out.push_back(std::move(all));
}

std::string show_marked(const Marked& marked, bool color) {
  std::string out;
  std::size_t at = 0;
  for (const ByteRange& r : marked.trained) {
    out += marked.text.substr(at, r.begin - at);
    out += color ? "\x1b[32m" : "⟦";
    out += marked.text.substr(r.begin, r.end - r.begin);
    out += color ? "\x1b[0m" : "⟧";
    at = r.end;
  }
  return out + marked.text.substr(at);
}

}  // namespace supersonic::text
