// Built from the sorted tokens, nodes breadth first. A base is looked for in the few open blocks of
// 256 nodes; a block that has refused too often is closed, so that no vocabulary makes building
// slow.
#include "text/trie.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace supersonic::text {
namespace {

constexpr uint32_t kBlock = 256, kOpenBlocks = 8, kMaxRefusals = 64;

struct Range {  // sorted tokens [begin, end) share `depth` bytes, which lead to `node`
  uint32_t begin, end, depth, node;
};

}  // namespace

struct Trie::Builder {
  struct Block {
    uint32_t start, refusals = 0;
    uint64_t free[4] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};  // a bit a node
    bool has(uint32_t offset) const { return free[offset / 64] >> offset % 64 & 1; }
    void take(uint32_t offset) { free[offset / 64] &= ~(uint64_t{1} << offset % 64); }
    bool full() const { return !(free[0] | free[1] | free[2] | free[3]); }
  };

  explicit Builder(std::vector<Node>& n) : nodes(n) {
    open_block();
    blocks[0].take(kRoot);
  }

  void open_block() {
    blocks.push_back({static_cast<uint32_t>(nodes.size())});
    nodes.resize(nodes.size() + kBlock);
  }

  // A base inside the block whose children by `labels` are all free; kBlock when there is none.
  static uint32_t find(const Block& block, const std::vector<uint8_t>& labels) {
    for (uint32_t word = 0; word < 4; ++word)
      for (uint64_t bits = block.free[word]; bits; bits &= bits - 1) {
        const uint32_t base =
            (word * 64 + static_cast<uint32_t>(std::countr_zero(bits))) ^ labels[0];
        if (std::all_of(labels.begin(), labels.end(),
                        [&](uint8_t label) { return block.has(base ^ label); }))
          return base;
      }
    return kBlock;
  }

  // A base whose children by `labels` are free; they are taken.
  uint32_t place(const std::vector<uint8_t>& labels) {
    for (size_t b = blocks.size(); b-- > 0;) {
      const uint32_t base = find(blocks[b], labels);
      if (base < kBlock) return take(b, base, labels);
      if (++blocks[b].refusals > kMaxRefusals) blocks.erase(blocks.begin() + static_cast<long>(b));
    }
    open_block();
    if (blocks.size() > kOpenBlocks) blocks.erase(blocks.begin());
    return take(blocks.size() - 1, 0, labels);
  }

  uint32_t take(size_t b, uint32_t base, const std::vector<uint8_t>& labels) {
    const uint32_t start = blocks[b].start;
    for (const uint8_t label : labels) blocks[b].take(base ^ label);
    if (blocks[b].full()) blocks.erase(blocks.begin() + static_cast<long>(b));
    return start + base;
  }

  std::vector<Node>& nodes;
  std::vector<Block> blocks;
};

void Trie::build(const std::vector<std::string>& tokens) {
  std::vector<int32_t> order(tokens.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](int32_t id) { return tokens[static_cast<size_t>(id)].empty(); });
  const auto text = [&](uint32_t at) -> const std::string& {
    return tokens[static_cast<size_t>(order[at])];
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return tokens[static_cast<size_t>(a)] < tokens[static_cast<size_t>(b)];
  });
  nodes_.clear();
  Builder builder(nodes_);
  std::vector<Range> todo = {{0, static_cast<uint32_t>(order.size()), 0, kRoot}};
  std::vector<uint8_t> labels;
  std::vector<uint32_t> starts;
  for (size_t next = 0; next < todo.size(); ++next) {
    Range r = todo[next];
    for (; r.begin < r.end && text(r.begin).size() == r.depth; ++r.begin)
      nodes_[r.node].id = order[r.begin];
    if (r.begin == r.end) continue;
    labels.clear();
    starts.clear();
    for (uint32_t at = r.begin; at < r.end;) {
      const char label = text(at)[r.depth];
      labels.push_back(static_cast<uint8_t>(label));
      starts.push_back(at);
      while (at < r.end && text(at)[r.depth] == label) ++at;
    }
    starts.push_back(r.end);
    const uint32_t base = builder.place(labels);
    nodes_[r.node].base = base;
    for (size_t i = 0; i < labels.size(); ++i) {
      nodes_[base ^ labels[i]].parent = r.node;
      todo.push_back({starts[i], starts[i + 1], r.depth + 1, base ^ labels[i]});
    }
  }
}

uint32_t Trie::walk(std::string_view prefix) const {
  uint32_t node = kRoot;
  for (const char byte : prefix)
    if (node = child(node, byte); node == kNone) return kNone;
  return node;
}

}  // namespace supersonic::text
