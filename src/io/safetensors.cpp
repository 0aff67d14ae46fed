// Reading safetensors: the header's entries become views after their placement has been checked as
// a whole.
#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "io/checked.h"
#include "io/json.h"
#include "io/safetensors_header.h"

namespace supersonic::io {

namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;

struct Type {
  std::string_view name;
  int bits;
  bool readable;
  DType dtype;
};
constexpr Type kTypes[] = {
    {"F32", 32, true, DType::f32}, {"F16", 16, true, DType::f16}, {"BF16", 16, true, DType::bf16},
    {"F64", 64, true, DType::f64}, {"I32", 32, true, DType::i32}, {"I64", 64, true, DType::i64},
    {"U8", 8, true, DType::u8},    {"I8", 8, true, DType::i8},    {"BOOL", 8, false, {}},
    {"I16", 16, false, {}},        {"U16", 16, false, {}},        {"U32", 32, false, {}},
    {"U64", 64, false, {}},        {"C64", 64, false, {}},        {"F8_E4M3", 8, false, {}},
    {"F8_E5M2", 8, false, {}},     {"F8_E8M0", 8, false, {}},     {"F8_E4M3FNUZ", 8, false, {}},
    {"F8_E5M2FNUZ", 8, false, {}}, {"F6_E2M3", 6, false, {}},     {"F6_E3M2", 6, false, {}},
    {"F4", 4, false, {}}};

const Type* find_type(std::string_view name) {
  const auto it = std::find_if(std::begin(kTypes), std::end(kTypes),
                               [&](const Type& t) { return t.name == name; });
  return it == std::end(kTypes) ? nullptr : it;
}

std::optional<std::uint64_t> bytes_of(const SafeTensorEntry& entry, int bits) {
  std::uint64_t n = 1;
  for (const auto d : entry.shape) {
    const auto product = checked_mul(n, d);
    if (!product) return std::nullopt;
    n = *product;
  }
  const auto total = checked_mul(n, static_cast<std::uint64_t>(bits));
  if (!total || *total % 8) return std::nullopt;
  return *total / 8;
}

SafeTensor make_tensor(const SafeTensorEntry& entry, std::span<const std::byte> data,
                       const std::string& file) {
  const std::string shown = entry.name.substr(0, 200);
  CHECK_FILE(entry.begin <= entry.end && entry.end <= data.size(),
             "{}: tensor \"{}\": data_offsets [{}, {}] are outside the {} bytes of data; the file "
             "is truncated or "
             "damaged, fetch it again",
             file, shown, entry.begin, entry.end, data.size());
  const Type* type = find_type(entry.dtype);
  SafeTensor tensor;
  tensor.name = entry.name;
  tensor.dtype_name = entry.dtype.substr(0, 40);
  tensor.data = data.subspan(entry.begin, entry.end - entry.begin);
  if (type) {
    const auto bytes = bytes_of(entry, type->bits);
    CHECK_FILE(bytes && *bytes == tensor.data.size(),
               "{}: tensor \"{}\": its shape of {} dimensions and dtype {} do not make the {} "
               "bytes of its data_offsets",
               file, shown, entry.shape.size(), entry.dtype, tensor.data.size());
    tensor.dtype = type->dtype;
  }
  const auto fits = [](std::uint64_t d) {
    return d <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  };
  tensor.readable = type && type->readable && entry.shape.size() <= kMaxRank &&
                    std::all_of(entry.shape.begin(), entry.shape.end(), fits);
  if (entry.shape.size() <= kMaxRank)
    for (const auto d : entry.shape)
      tensor.shape.dims[tensor.shape.rank++] = static_cast<std::int64_t>(d);
  return tensor;
}

struct Index {
  std::vector<std::string> files;                            // in the order of their names
  std::vector<std::pair<std::string, std::string>> weights;  // tensor, file
};

bool is_plain_name(std::string_view name) {
  return !name.empty() && name[0] != '.' &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

Index read_index(const std::string& path) {
  const auto document =
      JsonDocument::read(path, {.max_bytes = std::size_t{100} << 20, .max_depth = 16});
  const JsonView weight_map = document.root().find("weight_map");
  CHECK_FILE(weight_map.is_object(), "{}: weight_map is missing; fetch the file again", path);
  Index index;
  for (const auto& [tensor, file] : weight_map.members()) {
    const std::string shard = file.text().value_or("");
    CHECK_FILE(is_plain_name(shard), "{}: weight_map: the file of \"{}\" must be a plain file name",
               path, tensor.substr(0, 200));
    index.weights.emplace_back(tensor, shard);
    index.files.push_back(shard);
  }
  std::sort(index.files.begin(), index.files.end());
  index.files.erase(std::unique(index.files.begin(), index.files.end()), index.files.end());
  CHECK_FILE(!index.files.empty(), "{}: weight_map is empty", path);
  return index;
}

std::string resolve(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(path)) return path;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    const auto candidate = fs::path(path) / name;
    if (fs::exists(candidate)) return candidate.string();
  }
  fail(ErrorKind::bad_file,
       "{}: holds neither model.safetensors nor model.safetensors.index.json; give the folder of a "
       "model in safetensors "
       "format (pickled .bin files are not read)",
       path);
}

}  // namespace

std::string_view safetensors_name(DType dtype) {
  for (const auto& t : kTypes)
    if (t.readable && t.dtype == dtype) return t.name;
  fail(ErrorKind::failure, "safetensors cannot hold {} tensors; dequantize them first",
       name_of(dtype));
}

void SafeTensors::add_file(std::span<const std::byte> bytes, const std::string& name) {
  CHECK_FILE(bytes.size() >= 8, "{}: {} bytes are too few for a safetensors file", name,
             bytes.size());
  std::uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  CHECK_FILE(header_bytes <= kMaxHeader,
             "{}: byte 0: the header claims {} bytes, at most {} are allowed", name, header_bytes,
             kMaxHeader);
  CHECK_FILE(
      header_bytes <= bytes.size() - 8,
      "{}: byte 0: the header claims {} bytes, {} are left; the file is truncated, fetch it again",
      name, header_bytes, bytes.size() - 8);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  CHECK_FILE(!text.empty() && text[0] == '{',
             "{}: byte 8: the header does not start with '{{'; not a safetensors file", name);
  auto header = parse_safetensors_header(text, name);
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  const auto data = bytes.subspan(8 + header_bytes);
  std::uint64_t expected = 0;
  for (const auto& entry : header.tensors) {
    CHECK_FILE(
        entry.begin == expected,
        "{}: tensor \"{}\": data_offsets begin at {}, {} was expected (a hole or an overlap)", name,
        entry.name.substr(0, 200), entry.begin, expected);
    tensors_.push_back(make_tensor(entry, data, name));
    tensors_.back().file = static_cast<std::uint32_t>(files_.size());
    expected = entry.end;
  }
  CHECK_FILE(expected == data.size(),
             "{}: the tensors take {} bytes, the file holds {} after its header; it is {}", name,
             expected, data.size(),
             expected > data.size() ? "truncated, fetch it again" : "damaged");
  for (auto& m : header.metadata) metadata_.push_back(std::move(m));
  files_.push_back(name);
}

void SafeTensors::build_index() {
  order_.resize(tensors_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  std::sort(order_.begin(), order_.end(),
            [&](auto a, auto b) { return tensors_[a].name < tensors_[b].name; });
  for (std::size_t i = 1; i < order_.size(); ++i) {
    const auto &a = tensors_[order_[i - 1]], &b = tensors_[order_[i]];
    CHECK_FILE(a.name != b.name, "{}: the tensor \"{}\" is stored twice (in {} and {})", path_,
               a.name.substr(0, 200), files_[a.file], files_[b.file]);
  }
}

SafeTensors SafeTensors::parse(std::span<const std::byte> bytes, std::string name) {
  SafeTensors result;
  result.path_ = std::move(name);
  result.add_file(bytes, result.path_);
  result.build_index();
  return result;
}

SafeTensors SafeTensors::open(const std::string& path) {
  SafeTensors result;
  result.path_ = path;
  const std::string file = resolve(path);
  Index index;
  if (file.ends_with(".json")) {
    index = read_index(file);
    const auto folder = std::filesystem::path(file).parent_path();
    for (auto& f : index.files) f = (folder / f).string();
  } else {
    index.files = {file};
  }
  for (const auto& f : index.files) {
    result.maps_.push_back(MappedFile::open(f));
    result.add_file(result.maps_.back().bytes(), f);
  }
  result.build_index();
  for (const auto& [tensor, shard] : index.weights) {
    const SafeTensor* found = result.find(tensor);
    CHECK_FILE(found && std::filesystem::path(result.files_[found->file]).filename() == shard,
               "{}: weight_map places \"{}\" in {}, where it is not; fetch the files again", file,
               tensor.substr(0, 200), shard);
  }
  return result;
}

const SafeTensor* SafeTensors::find(std::string_view name) const {
  const auto it =
      std::lower_bound(order_.begin(), order_.end(), name,
                       [&](std::uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return it != order_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

const SafeTensor& SafeTensors::get(std::string_view name) const {
  const SafeTensor* found = find(name);
  CHECK_FILE(found,
             "{}: there is no tensor \"{}\"; the files are incomplete, or of another architecture "
             "than config.json says",
             path_, name);
  CHECK_FILE(found->readable,
             "{}: tensor \"{}\" has dtype {} or more than {} dimensions, which this program cannot "
             "read; convert it to "
             "F32, F16 or BF16",
             files_[found->file], name, found->dtype_name, kMaxRank);
  return *found;
}

}  // namespace supersonic::io
