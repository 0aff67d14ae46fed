#include "infer/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/interrupt.h"
#include "infer/stop.h"

namespace supersonic::infer {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Bytes of the answer on their way to the reader: ids -> characters -> what no stop string can
// begin in.
class Outlet {
 public:
  Outlet(const text::Tokenizer& tokenizer, const GenerateOptions& options,
         const Generator::Show& show, std::string& text)
      : decoder_(tokenizer, !options.show_special),
        matcher_(options.stops),
        show_(show),
        text_(text) {}
  // False once a stop string is complete.
  bool push(std::int32_t id) {
    pass(matcher_.push(decoder_.push(id)));
    return !matcher_.stopped();
  }
  void finish() {
    if (matcher_.stopped()) return;
    pass(matcher_.push(decoder_.finish()));
    if (!matcher_.stopped()) pass(matcher_.flush());
  }

 private:
  void pass(std::string_view bytes) {
    if (bytes.empty()) return;
    text_ += bytes;
    if (show_) show_(bytes);
  }
  text::StreamDecoder decoder_;
  StopMatcher matcher_;
  const Generator::Show& show_;
  std::string& text_;
};

}  // namespace

std::string_view name_of(Finish finish) {
  constexpr std::string_view names[] = {"stop", "length", "interrupted"};
  return names[static_cast<int>(finish)];
}

Generator::Generator(const models::Model& model, Session& session, const text::Tokenizer& tokenizer,
                     GenerateOptions options)
    : model_(model), session_(session), tokenizer_(tokenizer), options_(std::move(options)) {}

// At least the prompt's last token is fed, since its logits are wanted.
std::size_t Generator::keep_common(std::span<const std::int32_t> prompt, bool reuse) {
  std::size_t same = 0;
  if (reuse)
    while (same + 1 < prompt.size() && same < cached_.size() && cached_[same] == prompt[same])
      ++same;
  session_.rewind(static_cast<std::int64_t>(same));
  cached_.resize(same);
  return same;
}

Generation Generator::run(std::span<const std::int32_t> prompt, const Show& show, bool reuse) {
  CHECK(!prompt.empty(), "nothing to continue: the prompt has no tokens");
  if (static_cast<std::int64_t>(prompt.size()) > session_.capacity())
    fail(ErrorKind::usage,
         "the prompt has {} tokens, the context holds {}: shorten it or raise --ctx", prompt.size(),
         session_.capacity());
  Generation g;
  g.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  g.finish = Finish::length;
  if (options_.max_tokens == 0) return g;
  const auto start = Clock::now();
  g.reused_tokens = static_cast<std::int64_t>(keep_common(prompt, reuse));
  // Models pad their vocabulary: rows of the head beyond the tokenizer's ids stand for no text.
  const int vocabulary =
      std::min(static_cast<int>(model_.config.vocab_size), tokenizer_.vocab_size());
  Sampler sampler(vocabulary, options_.sampling);
  sampler.accept(prompt);
  Outlet outlet(tokenizer_, options_, show, g.text);

  const auto fed = prompt.subspan(cached_.size());
  const auto logits = session_.feed(fed);
  cached_.insert(cached_.end(), fed.begin(), fed.end());
  std::int32_t token = sampler.sample(logits.first(static_cast<std::size_t>(vocabulary)),
                                      static_cast<std::uint32_t>(cached_.size()));
  g.prompt_seconds = since(start);
  const Clock::time_point first = Clock::now();
  // How many tokens may follow the first one: all but it are fed, so that they must have room.
  std::int64_t left = session_.capacity() - session_.position();
  if (options_.max_tokens >= 0) left = std::min(left, options_.max_tokens - 1);
  bool started = false;
  for (;;) {
    if (std::binary_search(options_.stop_ids.begin(), options_.stop_ids.end(), token)) {
      g.finish = Finish::stop;
      break;
    }
    g.ids.push_back(token);
    if (!outlet.push(token)) {
      g.finish = Finish::stop;
      break;
    }
    if (left == 0) break;
    if (interrupted()) {
      g.finish = Finish::interrupted;
      break;
    }
    if (!started) {
      sampler.accept(token);
      session_.start(token, sampler.settings(), sampler.seen(), left);
      started = true;
    }
    const std::int32_t following = session_.next();
    cached_.push_back(std::exchange(token, following));
    --left;
  }
  g.decode_seconds = since(first);
  session_.stop();
  outlet.finish();
  return g;
}

}  // namespace supersonic::infer
