// Writes a GGUF file (version 3, alignment 32): metadata, then the declared tensors, then their
// data in the order of declaration, streamed. The file appears under its name only when finish()
// returns; see OutputFile.
//
//   GgufWriter out("model.gguf");
//   out.set_string("general.architecture", "llama");
//   out.declare("token_embd.weight", {49152, 576}, *find_format("q4_1"));
//   out.append("token_embd.weight", bytes);      // as often as needed until the tensor is complete
//   out.finish();
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"
#include "formats/format.h"
#include "io/gguf.h"
#include "io/output_file.h"

namespace supersonic::io {

class GgufWriter {
 public:
  explicit GgufWriter(std::string path);

  // Metadata: before the first append(). A key may be set once.
  void set_u8(std::string_view key, std::uint8_t v);
  void set_i8(std::string_view key, std::int8_t v);
  void set_u16(std::string_view key, std::uint16_t v);
  void set_i16(std::string_view key, std::int16_t v);
  void set_u32(std::string_view key, std::uint32_t v);
  void set_i32(std::string_view key, std::int32_t v);
  void set_u64(std::string_view key, std::uint64_t v);
  void set_i64(std::string_view key, std::int64_t v);
  void set_f32(std::string_view key, float v);
  void set_f64(std::string_view key, double v);
  void set_bool(std::string_view key, bool v);
  void set_string(std::string_view key, std::string_view v);
  void set_strings(std::string_view key, std::span<const std::string> v);
  void set_i32s(std::string_view key, std::span<const std::int32_t> v);
  void set_u32s(std::string_view key, std::span<const std::uint32_t> v);
  void set_f32s(std::string_view key, std::span<const float> v);
  // Any scalar or array, bytes as they stand in a file: count items of the type, little-endian.
  void set_raw(std::string_view key, GgufType type, std::span<const std::byte> item);
  void set_raw_array(std::string_view key, GgufType item, std::uint64_t count,
                     std::span<const std::byte> items);
  void copy(const GgufValue& value);  // from another file, unchanged
  bool has(std::string_view key) const { return keys_.contains(std::string(key)); }

  void declare(std::string_view name, const Shape& shape, DType dtype);
  void declare(std::string_view name, const Shape& shape, const Format& format);  // a GGUF format

  // Data of the current tensor, which must be the one named: pieces in order, declared order among
  // tensors.
  void append(std::string_view name, std::span<const std::byte> data);
  std::uint64_t bytes_of(std::string_view name) const;  // that append() expects in all
  // Error(failure) when a declared tensor lacks data. The file exists, complete and on the disk,
  // when this returns.
  void finish();

 private:
  struct Declared {
    std::string name;
    std::vector<std::uint64_t> dims;  // fastest first
    std::uint32_t type;
    std::uint64_t bytes, offset;
  };
  void begin_value(std::string_view key, GgufType type);
  void declare(std::string_view name, const Shape& shape, std::uint32_t type,
               std::optional<std::uint64_t> bytes);
  void write_header();

  std::string path_;
  std::string values_;  // encoded metadata
  std::uint64_t n_values_ = 0, data_bytes_ = 0;
  std::unordered_set<std::string> keys_, names_;
  std::vector<Declared> tensors_;
  std::unique_ptr<OutputFile> file_;  // opened by the first append or by finish
  std::size_t current_ = 0;           // tensor being written
  std::uint64_t written_ = 0;         // of its bytes
};

}  // namespace supersonic::io
