// What the policy loop may choose from (plan.cpp): levels in the order of their cost, each naming
// what is recomputed in backward and what waits in host memory for it.
//
// Where the backend estimates times, an activation's way to host memory and back costs nothing
// while it is hidden behind computation, so regions are sent away first, as many as the link
// carries during the forward pass, spread evenly. Only then are others recomputed, and last of all
// every region's boundary is sent away too. What is dear to recompute for its size (a thin product,
// attention over long rows) is kept even in a region that is recomputed.
#pragma once
#include <string>
#include <vector>

#include "core/graph.h"

namespace supersonic {

struct Level {
  RematChoice remat;
  CopyChoice copies;
  std::vector<bool> away = {};  // by node id: results wait in host memory
  bool patient = true;          // no step waits for a copy that leaves
  std::string name;
};

// At least one; the last needs the least memory, or nearly.
std::vector<Level> levels_of(const Graph& recorded, Backend& backend, const Policy& policy);
// The first n regions recomputed, nothing sent away.
Level recomputed_level(const Graph& recorded, std::uint32_t n);

}  // namespace supersonic
