// A model from the hub into the cache, and a model in the cache by its name. pull() of a model that
// is there already asks the hub for the revision's commit and transfers nothing.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hub/cache.h"
#include "hub/client.h"
#include "hub/listing.h"

namespace supersonic::hub {

struct Found {
  std::string path;  // the folder, or the (first) GGUF file, or the file
  std::string commit;
  Selection selection;
};

// In the cache, without network. Throws Error(bad_file) where the model is not there, or not all of
// it, with the command that fetches it; Error(usage) where the choice is not clear.
Found find_cached(const Cache& cache, const ModelName& name);

class Pull {
 public:
  // Asks the hub (the cache, where the settings say offline) what there is. Throws as Client does.
  Pull(const Settings& settings, const ModelName& name, const Watch& watch);

  const Selection& selection() const { return selection_; }
  const std::string& commit() const { return commit_; }
  std::uint64_t missing() const;  // bytes to transfer

  struct Progress {
    std::uint64_t arrived = 0, total = 0;  // bytes
    std::size_t files = 0, all_files = 0;
  };
  // Returns the bytes that came over the network.
  std::uint64_t download(int jobs, const std::function<void(const Progress&)>& progress);
  std::string path() const;

 private:
  std::uint64_t fetch(const std::vector<RepoFile>& files, int jobs,
                      const std::function<void(const Progress&)>& progress);
  std::vector<RepoFile> unlisted_shards() const;
  void check_room(std::uint64_t needed) const;

  const Settings& settings_;
  const Watch& watch_;
  ModelName name_;
  Cache cache_;
  std::string commit_;
  std::vector<RepoFile> tree_;
  Selection selection_;
};

}  // namespace supersonic::hub
