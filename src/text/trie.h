// All tokens of a vocabulary as one tree of bytes, to find every token that starts at a place of a
// text: one step a byte, as a double array (Aoe 1989): the child of node n by byte b is
// base[n] ^ b, and check says whose child it is.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::text {

class Trie {
 public:
  static constexpr uint32_t kRoot = 0, kNone = UINT32_MAX;
  // Of equal tokens the last one's id counts; empty ones are left out.
  void build(const std::vector<std::string>& tokens);
  uint32_t child(uint32_t node, char byte) const {
    const uint32_t next = nodes_[node].base ^ static_cast<uint8_t>(byte);
    return nodes_[next].parent == node ? next : kNone;
  }
  int32_t id(uint32_t node) const { return nodes_[node].id; }  // -1: no token ends here
  // Where `prefix` leads; kNone when no token begins so.
  uint32_t walk(std::string_view prefix) const;

 private:
  struct Node {
    uint32_t base = 0, parent = kNone;
    int32_t id = -1;
  };
  struct Builder;
  std::vector<Node> nodes_;  // a multiple of 256, so that base ^ byte is always inside
};

}  // namespace supersonic::text
