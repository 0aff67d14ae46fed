// What is held back is the longest beginning of a stop string that the bytes so far end in.
#include "infer/stop.h"

#include <algorithm>

#include "core/error.h"

namespace supersonic::infer {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    if (stop.empty()) fail(ErrorKind::usage, "a stop string must not be empty");
    Automaton a{.text = std::move(stop), .fallback = {}};
    a.fallback.resize(a.text.size());
    for (std::uint32_t i = 1, k = 0; i < a.text.size(); ++i) {
      while (k > 0 && a.text[i] != a.text[k]) k = a.fallback[k - 1];
      if (a.text[i] == a.text[k]) ++k;
      a.fallback[i] = k;
    }
    automata_.push_back(std::move(a));
  }
}

// Feeds one byte to every automaton. True when a stop string is complete; longest_ is then the
// longest of those.
bool StopMatcher::advance(char byte) {
  std::uint32_t partial = 0, complete = 0;
  for (Automaton& a : automata_) {
    while (a.matched > 0 && a.text[a.matched] != byte) a.matched = a.fallback[a.matched - 1];
    if (a.text[a.matched] == byte) ++a.matched;
    if (a.matched == a.text.size()) {
      complete = std::max(complete, a.matched);
      a.matched = a.fallback[a.matched - 1];
    }
    partial = std::max(partial, a.matched);
  }
  longest_ = complete ? complete : partial;
  return complete > 0;
}

std::string_view StopMatcher::push(std::string_view bytes) {
  held_.erase(0, passed_);
  passed_ = 0;
  if (stopped_) return {};
  for (char byte : bytes) {
    if (stopped_) break;
    held_ += byte;
    stopped_ = advance(byte);
  }
  if (!stopped_) {
    passed_ = held_.size() - longest_;
    return std::string_view(held_).substr(0, passed_);
  }
  passed_ = held_.size();
  return std::string_view(held_).substr(0, held_.size() - longest_);
}

std::string_view StopMatcher::flush() {
  held_.erase(0, passed_);
  passed_ = held_.size();
  return held_;
}

void StopMatcher::reset() {
  for (Automaton& a : automata_) a.matched = 0;
  held_.clear();
  passed_ = 0, longest_ = 0, stopped_ = false;
}

}  // namespace supersonic::infer
