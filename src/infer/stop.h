// Stop strings over a byte stream: passes text on as early as it is certain that no stop string
// begins in it, and ends at the first byte that completes one. How the stream is cut into pieces
// changes nothing. The stop string itself and what follows are not passed on. One
// Knuth-Morris-Pratt automaton a string: constant work a byte, no allocation once the buffer has
// grown to the longest piece.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::infer {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);  // empty strings are refused: Error(usage)

  // Takes the next bytes and returns those that may be shown now; the view holds until the next
  // call.
  std::string_view push(std::string_view bytes);
  // At the end of the stream: what was held back.
  std::string_view flush();
  bool stopped() const { return stopped_; }
  void reset();

 private:
  struct Automaton {
    std::string text;
    std::vector<std::uint32_t> fallback;  // longest proper border of each prefix
    std::uint32_t matched = 0;
  };
  bool advance(char byte);

  std::vector<Automaton> automata_;
  std::string held_;  // bytes taken and not yet passed on; its first passed_ ones are out
  std::size_t passed_ = 0;
  std::uint32_t longest_ = 0;  // of the matches in progress, or of the one that ended the stream
  bool stopped_ = false;
};

}  // namespace supersonic::infer
