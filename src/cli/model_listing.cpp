// Both containers are listed from their headers; a value of the metadata is cut to one line of
// text.
#include "cli/model_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "io/gguf.h"
#include "io/hf_config.h"
#include "io/safetensors.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kShownBytes = 120, kShownItems = 6;

// The first bytes of a text on one line, cut between characters.
std::string shortened(std::string_view text) {
  std::string out(text.substr(0, kShownBytes));
  const bool cut = text.size() > out.size();
  while (cut && !out.empty() && (static_cast<unsigned char>(text[out.size()]) & 0xc0) == 0x80)
    out.pop_back();
  for (std::size_t i = 0; (i = out.find_first_of("\n\r\t", i)) != std::string::npos; ++i)
    out.replace(i, 1, out[i] == '\n' ? "\\n" : out[i] == '\r' ? "\\r" : "\\t");
  return cut ? out + "…" : out;
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

std::string scalar_text(io::GgufType type, const std::byte* at) {
  using enum io::GgufType;
  switch (type) {
    case u8:
      return fmt::to_string(load<std::uint8_t>(at));
    case i8:
      return fmt::to_string(load<std::int8_t>(at));
    case u16:
      return fmt::to_string(load<std::uint16_t>(at));
    case i16:
      return fmt::to_string(load<std::int16_t>(at));
    case u32:
      return fmt::to_string(load<std::uint32_t>(at));
    case i32:
      return fmt::to_string(load<std::int32_t>(at));
    case u64:
      return fmt::to_string(load<std::uint64_t>(at));
    case i64:
      return fmt::to_string(load<std::int64_t>(at));
    case f32:
      return fmt::format("{}", load<float>(at));
    case f64:
      return fmt::format("{}", load<double>(at));
    case boolean:
      return load<std::uint8_t>(at) ? "true" : "false";
    default:
      return {};
  }
}

std::string value_text(const io::GgufFile& file, const io::GgufValue& v) {
  if (v.type == io::GgufType::string) return shortened(file.get_string(v.key));
  if (v.type != io::GgufType::array) return scalar_text(v.type, v.payload.data());
  std::string out;
  const std::size_t shown = std::min(v.count, kShownItems);
  if (v.item == io::GgufType::string) {
    std::size_t n = 0;
    for (std::string_view item : file.get_strings(v.key)) {
      if (n++ == shown) break;
      out += fmt::format("{}{}", out.empty() ? "" : ", ", shortened(item));
    }
  } else {
    const std::size_t size = io::size_of(v.item);
    for (std::size_t i = 0; i < shown && size > 0; ++i)
      out += fmt::format("{}{}", i ? ", " : "", scalar_text(v.item, v.payload.data() + i * size));
  }
  return fmt::format("[{}{}] ({} {})", out, v.count > shown ? ", …" : "", v.count,
                     io::name_of(v.item));
}

// The configuration, or why this engine cannot run the model: a listing is useful either way.
template <class Read>
void read_config(ModelListing& out, Read&& read) {
  try {
    out.config = read();
  } catch (const Error& e) {
    out.unsupported = e.what();
  }
}

ModelListing list_gguf(const std::string& path) {
  const io::GgufFile file = io::GgufFile::open(path);
  ModelListing out;
  out.path = path, out.container = fmt::format("GGUF v{}", file.version());
  out.architecture = file.get_string("general.architecture", "");
  out.name = file.get_string("general.name", "");
  read_config(out, [&] { return io::model_config_from_gguf(file); });
  for (const io::GgufTensor& t : file.tensors())
    out.tensors.push_back(
        {std::string(t.name), io::ggml_type_name(t.ggml_type), t.shape, t.data.size()});
  constexpr std::string_view kTemplate = "tokenizer.chat_template";
  for (const io::GgufValue& v : file.values()) {
    out.metadata.emplace_back(v.key, value_text(file, v));
    if (v.type != io::GgufType::string || !v.key.starts_with(kTemplate)) continue;
    const std::string_view rest = v.key.substr(kTemplate.size());
    if (rest.empty() || rest[0] == '.')
      out.templates.emplace_back(rest.empty() ? "default" : rest.substr(1), file.get_string(v.key));
  }
  return out;
}

ModelListing list_folder(const std::string& path) {
  ModelListing out;
  out.path = path, out.container = "safetensors";
  read_config(out, [&] { return io::read_model_config(path); });
  if (out.config) out.architecture = out.config->architecture, out.name = out.config->name;
  const io::SafeTensors file = io::SafeTensors::open(path);
  for (const io::SafeTensor& t : file.tensors()) {
    std::string type = t.dtype_name;
    std::transform(type.begin(), type.end(), type.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    out.tensors.push_back({t.name, type, t.shape, t.data.size()});
  }
  for (const auto& [key, value] : file.metadata()) out.metadata.emplace_back(key, shortened(value));
  out.templates = io::read_tokenizer_config(path).chat_templates;
  return out;
}

}  // namespace

std::uint64_t ModelListing::parameters() const {
  std::uint64_t n = 0;
  for (const ListedTensor& t : tensors) n += static_cast<std::uint64_t>(t.shape.numel());
  return n;
}
std::uint64_t ModelListing::bytes() const {
  std::uint64_t n = 0;
  for (const ListedTensor& t : tensors) n += t.bytes;
  return n;
}

std::vector<TypeTotal> ModelListing::types() const {
  std::vector<TypeTotal> out;
  for (const ListedTensor& t : tensors) {
    auto found =
        std::find_if(out.begin(), out.end(), [&](const TypeTotal& x) { return x.type == t.type; });
    if (found == out.end()) found = out.insert(out.end(), TypeTotal{.type = t.type});
    ++found->tensors, found->parameters += static_cast<std::uint64_t>(t.shape.numel()),
        found->bytes += t.bytes;
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const TypeTotal& a, const TypeTotal& b) { return a.bytes > b.bytes; });
  return out;
}

ModelListing list_model(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error) ? list_folder(path) : list_gguf(path);
}

}  // namespace supersonic::cli
