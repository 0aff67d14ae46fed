// A model that lies in a folder or a file outside of the cache: which of its files are the model.
// And copying models: out of the cache, or into it under a name.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/interrupt.h"
#include "hub/cache.h"
#include "hub/listing.h"

namespace supersonic::hub {

struct LocalModel {
  std::string folder;   // of all its files
  Selection selection;  // paths below the folder; no hashes
};

// path: a folder, or a file (then with the other parts of a split set). Throws Error(bad_file)
// where there is no model.
LocalModel local_model(const std::string& path);
// All files below a folder but hidden ones, with sizes; links to files are followed, links to
// folders are not.
std::vector<RepoFile> list_folder(const std::string& folder);

using CopyProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Copies the files as files (links are followed) below `folder`, which exists.
void copy_files(const LocalModel& model, const std::string& folder, const CopyProgress& progress);

// Into the cache, as OWNER/NAME at its revision: content by hash, a snapshot, the revision's name.
// What is in the cache already takes no further room. Returns the snapshot's folder, or file.
// Throws Error(usage) where the name is taken by another content and `replace` is false.
std::string adopt(const LocalModel& model, const Cache& cache, const ModelName& name, bool replace,
                  const CopyProgress& progress);

}  // namespace supersonic::hub
