// What fusion decides before a chain is written: which nodes run together, and in which order everything runs.
#pragma once
#include "core/graph.h"

namespace supersonic {

// What the plan runs at once: a node by itself, or the members of a group.
struct Unit {
  int node = -1, group = -1;
};

struct Fusion {
  std::vector<std::vector<int>> groups;  // members, ascending
  std::vector<int> group_of;             // of a node; -1: it runs by itself
  std::vector<bool> stored;              // whether somebody outside of its group reads a node's result
  std::vector<Unit> order;
};

// Joins groups that walk over the same operands into one with several stores, where nothing but their own order stands between
// them and no peak grows (fuse_siblings.cpp).
void fuse_siblings(const Graph& graph, Fusion& fusion);

}  // namespace supersonic
