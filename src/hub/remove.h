// Taking models out of the cache: what goes is said first, then done. A blob goes when no snapshot
// that stays has a link to it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "hub/cache.h"

namespace supersonic::hub {

struct Removal {
  std::string repo, folder;
  bool whole = false;                // the repository's folder with all that is in it
  std::vector<std::string> commits;  // snapshots that go
  std::vector<std::string> refs;     // names that point to them
  std::vector<std::string> files;    // snapshots/COMMIT/PATH of snapshots that stay
  std::vector<std::string> blobs;    // names in blobs/
  std::uint64_t bytes = 0;           // that become free
};

// OWNER/NAME: all of it. @REVISION: that snapshot. :FILE or :QUANT: those files, in each snapshot
// or that of the revision. Throws Error(bad_file) where there is nothing of that name.
Removal plan_removal(const Cache& cache, const ModelName& name);
// Throws Error(failure) where somebody is downloading into the repository now.
void remove(const Cache& cache, const Removal& removal);

}  // namespace supersonic::hub
