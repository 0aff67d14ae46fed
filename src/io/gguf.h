// GGUF files (version 2 and 3, little-endian), read in place: metadata values, strings and tensors
// are views into the mapping, so that opening a file costs one pass over its header and no
// allocation per string. Everything is validated when the file is opened: counts and lengths
// against the bytes that remain before anything is allocated, dimensions and offsets with checked
// arithmetic, no duplicate names, no overlaps. After open() returns, every view is in range.
// Specification: ggml's docs/gguf.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"
#include "formats/format.h"
#include "io/mapped_file.h"

namespace supersonic::io {

// The metadata types, by their numbers in the file.
enum class GgufType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};
std::string_view name_of(GgufType type);
std::size_t size_of(GgufType type);  // bytes of a scalar; 0 for string and array

// The strings of an array, in order: a forward range of views into the file.
class GgufStrings {
 public:
  class iterator {
   public:
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::forward_iterator_tag;
    using pointer = void;
    using reference = std::string_view;
    iterator() = default;
    std::string_view operator*() const {
      return {reinterpret_cast<const char*>(at_) + sizeof(std::uint64_t),
              static_cast<std::size_t>(length())};
    }
    iterator& operator++() {
      at_ += sizeof(std::uint64_t) + length();
      return *this;
    }
    iterator operator++(int) {
      auto old = *this;
      ++*this;
      return old;
    }
    bool operator==(const iterator&) const = default;

   private:
    friend class GgufStrings;
    explicit iterator(const std::byte* at) : at_(at) {}
    std::uint64_t length() const {
      std::uint64_t n;
      std::memcpy(&n, at_, sizeof n);
      return n;
    }
    const std::byte* at_ = nullptr;
  };

  GgufStrings() = default;
  GgufStrings(std::span<const std::byte> payload, std::size_t count)
      : payload_(payload), count_(count) {}
  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  iterator begin() const { return iterator(payload_.data()); }
  iterator end() const { return iterator(payload_.data() + payload_.size()); }
  std::vector<std::string_view> to_vector() const { return {begin(), end()}; }

 private:
  std::span<const std::byte> payload_;
  std::size_t count_ = 0;
};

struct GgufValue {
  std::string_view key;
  GgufType type{};
  GgufType item{};                     // arrays: the items' type
  std::size_t count = 1;               // arrays: number of items
  std::span<const std::byte> payload;  // the scalar, the string's bytes, or the array's items
  std::size_t offset = 0;              // of the key in the file, for messages
};

struct GgufTensor {
  std::string_view name;
  Shape shape;    // row-major, slowest dimension first (the file stores the reverse)
  DType dtype{};  // DType::quant: see format
  const Format* format = nullptr;  // the quantized format; null for scalar types
  int ggml_type = 0;
  std::span<const std::byte> data;  // rows of whole blocks, contiguous
};

class GgufFile {
 public:
  // Throws Error(bad_file) naming the file, the byte offset and the field. With any part of a split
  // model (io/gguf_split.h) all are opened: values() are the first part's, tensors() those of all.
  static GgufFile open(const std::string& path);
  // The same over bytes that the caller keeps alive; name is for messages.
  static GgufFile parse(std::span<const std::byte> bytes, std::string name);

  // The parts of a split model, in order, as one file.
  static GgufFile join(std::vector<GgufFile> parts);

  const std::string& path() const { return name_; }
  std::uint32_t version() const { return version_; }
  std::uint64_t alignment() const { return alignment_; }
  std::span<const GgufValue> values() const { return values_; }     // in file order
  std::span<const GgufTensor> tensors() const { return tensors_; }  // in file order

  const GgufValue* find(std::string_view key) const;           // null when absent
  const GgufTensor* find_tensor(std::string_view name) const;  // null when absent
  const GgufTensor& tensor(std::string_view name) const;       // Error(bad_file) when absent

  // Typed access. Integers of any width are accepted when the value fits; nothing else converts.
  // The form without a default throws Error(bad_file) when the key is absent; all throw when the
  // type or range is wrong.
  std::uint32_t get_u32(std::string_view key) const;
  std::uint32_t get_u32(std::string_view key, std::uint32_t fallback) const;
  std::int64_t get_i64(std::string_view key) const;
  std::int64_t get_i64(std::string_view key, std::int64_t fallback) const;
  double get_float(std::string_view key) const;  // f32 or f64
  double get_float(std::string_view key, double fallback) const;
  bool get_bool(std::string_view key, bool fallback) const;
  std::string_view get_string(std::string_view key) const;
  std::string_view get_string(std::string_view key, std::string_view fallback) const;
  GgufStrings get_strings(std::string_view key) const;
  std::vector<std::int64_t> get_ints(std::string_view key) const;  // an array of integers
  std::vector<float> get_floats(std::string_view key) const;       // an array of f32 or f64
  // An integer, or an array with one integer per layer (count of them): head_count_kv is written
  // either way.
  std::vector<std::int64_t> get_per_layer(std::string_view key, std::size_t count) const;

 private:
  friend class GgufParser;
  const GgufValue& require(std::string_view key) const;
  [[noreturn]] void wrong_type(const GgufValue& value, std::string_view expected) const;
  std::int64_t integer(const GgufValue& value, std::int64_t low, std::int64_t high) const;
  double real(const GgufValue& value) const;
  static GgufFile open_part(const std::string& path);
  void sort_tensors();  // Error where a name stands twice

  std::vector<MappedFile> files_;  // the parts; none where the caller keeps the bytes
  std::string name_;
  std::uint32_t version_ = 0;
  std::uint64_t alignment_ = 32;
  std::vector<GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::uint32_t> value_order_, tensor_order_;  // sorted by key, by name
};

// Type numbers of the file: the scalar types here, the quantized ones in the format registry.
std::optional<DType> scalar_of_ggml(int ggml_type);
int ggml_of_scalar(DType dtype);            // Error when GGUF has no such type (u8)
std::string ggml_type_name(int ggml_type);  // "q4_1"; "type 99" when unknown
// Bytes of a tensor; nullopt when the last dimension is not a multiple of the block, or on
// overflow.
std::optional<std::uint64_t> tensor_bytes(const Shape& shape, DType dtype, const Format* format);

}  // namespace supersonic::io
