// The hub's list of files, validated. See the header.
#include "hub/listing.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "hub/name.h"
#include "io/json_fields.h"

namespace supersonic::hub {
namespace {

constexpr std::size_t kMostFiles = 200'000;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 50;

RepoFile parse_entry(const io::JsonFields& entry, const std::string& source) {
  RepoFile file;
  file.path = entry.string("path").value_or("");
  check_path(file.path, source);
  file.size = static_cast<std::uint64_t>(entry.require_integer("size", 0, kMostBytes));
  file.etag = entry.string("oid").value_or("");
  if (entry.has("lfs")) {
    const io::JsonFields large = entry.object("lfs");
    file.etag = large.string("oid").value_or("");
    file.size = static_cast<std::uint64_t>(large.require_integer("size", 0, kMostBytes));
    CHECK_FILE(is_hex(file.etag, 64), "{}: {}: \"{}\" is no SHA-256", source, file.path,
               printable(file.etag, 80));
    return file;
  }
  CHECK_FILE(is_hex(file.etag, 40), "{}: {}: \"{}\" is no hash of a git object", source, file.path,
             printable(file.etag, 80));
  return file;
}

}  // namespace

std::vector<RepoFile> parse_tree(std::string_view text, const std::string& source) {
  const io::JsonDocument document(text, source);
  const io::JsonView root = document.root();
  CHECK_FILE(root.is_array(), "{}: a list of files was expected", source);
  CHECK_FILE(root.size() <= kMostFiles, "{}: over {} files", source, kMostFiles);
  std::vector<RepoFile> files;
  for (const io::JsonView& item : root.items()) {
    const io::JsonFields entry(item, source);
    if (entry.string("type").value_or("") == "file") files.push_back(parse_entry(entry, source));
  }
  return files;
}

void check_tree(std::vector<RepoFile>& files, const std::string& source) {
  CHECK_FILE(files.size() <= kMostFiles, "{}: over {} files", source, kMostFiles);
  std::sort(files.begin(), files.end(),
            [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
  std::set<std::string_view> paths;
  for (const RepoFile& f : files)
    CHECK_FILE(paths.insert(f.path).second, "{}: {} is listed twice", source, f.path);
  for (const RepoFile& f : files)
    for (std::size_t slash = f.path.find('/'); slash != f.path.npos;
         slash = f.path.find('/', slash + 1))
      CHECK_FILE(!paths.contains(std::string_view(f.path).substr(0, slash)),
                 "{}: {} is listed as a file and as a folder", source, f.path.substr(0, slash));
}

}  // namespace supersonic::hub
