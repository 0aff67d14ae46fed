// The GGUF parser: one pass over the header with a bounds-checked cursor, then the placement of the
// tensors is checked as a whole. A count is believed only after the bytes that it implies have been
// found to be there.
#include <algorithm>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "io/checked.h"
#include "io/gguf.h"

namespace supersonic::io {

namespace {

constexpr std::uint64_t kMaxString = std::uint64_t{1} << 30, kMaxItems = std::uint64_t{1} << 30;
constexpr std::uint64_t kMaxKey = 65535, kMaxName = 64, kMinAlignment = 8,
                        kMaxAlignment = std::uint64_t{1} << 20;
constexpr int kMaxDims = 4;
// Smallest possible records: an empty key with a one-byte value; an unnamed tensor without
// dimensions.
constexpr std::uint64_t kMinValueBytes = 8 + 4 + 1, kMinTensorBytes = 8 + 4 + 4 + 8;

// A name for messages: bytes that are not plain are shown as '?'.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, 100));
  for (char& c : out)
    if (c < ' ' || c > '~') c = '?';
  return out;
}

}  // namespace

class GgufParser {
 public:
  GgufParser(GgufFile& out, std::span<const std::byte> bytes) : out_(out), bytes_(bytes) {}

  void run() {
    read_header();
    for (std::uint64_t i = 0; i < n_values_; ++i) read_value();
    out_.value_order_ = sorted(
        out_.values_, [](const GgufValue& v) { return v.key; }, "metadata key");
    read_alignment();
    for (std::uint64_t i = 0; i < n_tensors_; ++i) read_tensor();
    out_.tensor_order_ = sorted(
        out_.tensors_, [](const GgufTensor& t) { return t.name; }, "tensor name");
    place_tensors();
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(std::size_t offset, fmt::format_string<Args...> format,
                        Args&&... args) const {
    fail(ErrorKind::bad_file, "{}: byte {}: {}", out_.name_, offset,
         fmt::format(format, std::forward<Args>(args)...));
  }

  std::uint64_t remaining() const { return bytes_.size() - at_; }

  template <class T>
  T read(const char* field) {
    if (remaining() < sizeof(T))
      bad(at_,
          "the file ends inside {} ({} bytes needed, {} left); it is truncated, fetch it again",
          field, sizeof(T), remaining());
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::span<const std::byte> take(std::uint64_t n, const char* field) {
    if (n > remaining())
      bad(at_, "{} claims {} bytes, {} are left; the file is truncated or damaged, fetch it again",
          field, n, remaining());
    const auto part = bytes_.subspan(at_, n);
    at_ += n;
    return part;
  }

  std::string_view read_string(const char* field, std::uint64_t limit) {
    const std::size_t start = at_;
    const auto length = read<std::uint64_t>(field);
    if (length > limit)
      bad(start, "{} claims {} bytes, at most {} are allowed", field, length, limit);
    const auto part = take(length, field);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  void read_header() {
    static constexpr char kMagic[] = {'G', 'G', 'U', 'F'};
    if (bytes_.size() < 4 || std::memcmp(bytes_.data(), kMagic, 4) != 0)
      bad(0, "not a GGUF file (it does not start with \"GGUF\")");
    at_ = 4;
    out_.version_ = read<std::uint32_t>("version");
    if (out_.version_ > 0 && (out_.version_ & 0xffff) == 0)
      bad(4, "a big-endian GGUF file; convert it with gguf's gguf_convert_endian");
    if (out_.version_ != 2 && out_.version_ != 3)
      bad(4,
          "version is {}; versions 2 and 3 can be read. Convert the model again with a current "
          "tool",
          out_.version_);
    n_tensors_ = read<std::uint64_t>("tensor_count");
    n_values_ = read<std::uint64_t>("metadata_kv_count");
    if (n_values_ > remaining() / kMinValueBytes)
      bad(16, "metadata_kv_count is {}, more than {} remaining bytes can hold; the file is damaged",
          n_values_, remaining());
    if (n_tensors_ > (remaining() - n_values_ * kMinValueBytes) / kMinTensorBytes)
      bad(8, "tensor_count is {}, more than {} remaining bytes can hold; the file is damaged",
          n_tensors_, remaining());
    if (n_tensors_ > std::numeric_limits<std::uint32_t>::max() ||
        n_values_ > std::numeric_limits<std::uint32_t>::max())
      bad(8, "more than 2^32 tensors or metadata values");
    out_.values_.reserve(n_values_);
    out_.tensors_.reserve(n_tensors_);
  }

  GgufType read_type(const char* field) {
    const std::size_t start = at_;
    const auto type = read<std::uint32_t>(field);
    if (type > static_cast<std::uint32_t>(GgufType::f64))
      bad(start, "{} is {}; types 0 to 12 exist. The file is damaged or newer than this program",
          field, type);
    return static_cast<GgufType>(type);
  }

  void read_value() {
    GgufValue value;
    value.offset = at_;
    value.key = read_string("metadata key length", kMaxKey);
    value.type = read_type("metadata value type");
    if (value.type == GgufType::string) {
      const auto text = read_string("string length", kMaxString);
      value.payload = std::as_bytes(std::span(text));
    } else if (value.type == GgufType::array) {
      read_array(value);
    } else {
      value.payload = take(size_of(value.type), "metadata value");
      if (value.type == GgufType::boolean) check_booleans(value);
    }
    out_.values_.push_back(value);
  }

  void read_array(GgufValue& value) {
    const std::size_t start = at_;
    value.item = read_type("array item type");
    if (value.item == GgufType::array)
      bad(start, "{}: an array of arrays, which no GGUF loader reads", printable(value.key));
    const auto count = read<std::uint64_t>("array length");
    if (count > kMaxItems)
      bad(start + 4, "{}: array length {} is over 2^30", printable(value.key), count);
    value.count = count;
    const std::size_t first = at_;
    if (value.item == GgufType::string) {
      if (count > remaining() / sizeof(std::uint64_t))
        bad(start + 4,
            "{}: array length is {} strings, {} bytes are left; the file is truncated or damaged",
            printable(value.key), count, remaining());
      for (std::uint64_t i = 0; i < count; ++i) read_string("array string length", kMaxString);
      value.payload = bytes_.subspan(first, at_ - first);
    } else {
      value.payload =
          take(count * size_of(value.item), "array");  // both factors are small: no overflow
      if (value.item == GgufType::boolean) check_booleans(value);
    }
  }

  void check_booleans(const GgufValue& value) const {
    for (const std::byte b : value.payload)
      if (std::to_integer<unsigned>(b) > 1)
        bad(value.offset, "{}: a bool holds {}, only 0 and 1 are allowed", printable(value.key),
            std::to_integer<unsigned>(b));
  }

  void read_alignment() {
    const GgufValue* value = out_.find("general.alignment");
    if (!value) return;
    if (value->type != GgufType::u32)
      bad(value->offset, "general.alignment is of type {}, u32 was expected", name_of(value->type));
    out_.alignment_ = out_.get_u32("general.alignment");
    const auto a = out_.alignment_;
    if (a < kMinAlignment || (a & (a - 1)) || a > kMaxAlignment)
      bad(value->offset, "general.alignment is {}; a power of two from {} to {} was expected", a,
          kMinAlignment, kMaxAlignment);
  }

  void read_tensor() {
    const std::size_t start = at_;
    GgufTensor tensor;
    tensor.name = read_string("tensor name length", kMaxName);
    const auto n_dims = read<std::uint32_t>("n_dims");
    if (n_dims > kMaxDims)
      bad(start, "tensor {}: n_dims is {}, at most {} are allowed", printable(tensor.name), n_dims,
          kMaxDims);
    tensor.shape.rank = static_cast<int>(n_dims);
    for (int i = static_cast<int>(n_dims) - 1; i >= 0;
         --i) {  // the file has the fastest dimension first
      const auto dim = read<std::uint64_t>("tensor dimension");
      if (dim == 0 || dim > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        bad(start, "tensor {}: dimension {} is out of range", printable(tensor.name), dim);
      tensor.shape.dims[i] = static_cast<std::int64_t>(dim);
    }
    const auto type = read<std::uint32_t>("tensor type");
    resolve_type(tensor, type, start);
    const auto offset = read<std::uint64_t>("tensor offset");
    const auto size = tensor_bytes(tensor.shape, tensor.dtype, tensor.format);
    if (!size) bad_size(tensor, start);
    extents_.push_back({offset, *size, start});
    out_.tensors_.push_back(tensor);
  }

  void resolve_type(GgufTensor& tensor, std::uint32_t type, std::size_t start) const {
    tensor.ggml_type =
        static_cast<int>(std::min<std::uint32_t>(type, std::numeric_limits<int>::max()));
    if (const auto scalar = scalar_of_ggml(tensor.ggml_type)) {
      tensor.dtype = *scalar;
      return;
    }
    tensor.dtype = DType::quant;
    tensor.format = find_ggml_format(tensor.ggml_type);
    if (!tensor.format)
      bad(start,
          "tensor {}: its type is {} ({}), which this program cannot read; use a file quantized as "
          "q8_0, q6_k, "
          "q5_k, q4_k or q4_0",
          printable(tensor.name), type, ggml_type_name(tensor.ggml_type));
  }

  [[noreturn]] void bad_size(const GgufTensor& tensor, std::size_t start) const {
    const Shape& s = tensor.shape;
    if (tensor.format && (s.rank == 0 || s[-1] % tensor.format->block))
      bad(start, "tensor {}: rows of {} values are not whole {} blocks of {}",
          printable(tensor.name), s.rank ? s[-1] : 1, tensor.format->name, tensor.format->block);
    bad(start, "tensor {}: shape {} overflows the size of a file", printable(tensor.name),
        to_string(s));
  }

  template <class T, class Name>
  std::vector<std::uint32_t> sorted(const std::vector<T>& items, Name name,
                                    const char* what) const {
    std::vector<std::uint32_t> order(items.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&](auto a, auto b) { return name(items[a]) < name(items[b]); });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (name(items[order[i - 1]]) == name(items[order[i]]))
        bad(at_, "the {} \"{}\" stands twice in the header", what,
            printable(name(items[order[i]])));
    return order;
  }

  void place_tensors() {
    const auto start = checked_align(at_, out_.alignment_);
    if (n_tensors_ == 0) return;
    if (!start || *start > bytes_.size())
      bad(at_, "the file ends before its tensor data; it is truncated, fetch it again");
    const std::uint64_t room = bytes_.size() - *start;
    for (std::size_t i = 0; i < extents_.size(); ++i) {
      const auto& e = extents_[i];
      GgufTensor& tensor = out_.tensors_[i];
      if (e.offset % out_.alignment_)
        bad(e.header, "tensor {}: offset {} is not a multiple of general.alignment {}",
            printable(tensor.name), e.offset, out_.alignment_);
      const auto end = checked_add(e.offset, e.size);
      if (!end || *end > room)
        bad(e.header,
            "tensor {}: offset {} plus its {} bytes reaches past the {} bytes of tensor data; the "
            "file is "
            "truncated or damaged, fetch it again",
            printable(tensor.name), e.offset, e.size, room);
      tensor.data = bytes_.subspan(*start + e.offset, e.size);
    }
    check_overlaps();
  }

  void check_overlaps() const {
    std::vector<std::uint32_t> order(extents_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) {
      return std::pair(extents_[a].offset, extents_[a].size) <
             std::pair(extents_[b].offset, extents_[b].size);
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const auto &before = extents_[order[i - 1]], &here = extents_[order[i]];
      if (before.offset + before.size > here.offset)
        bad(here.header, "tensor {}: offset {} lies inside tensor {}",
            printable(out_.tensors_[order[i]].name), here.offset,
            printable(out_.tensors_[order[i - 1]].name));
    }
  }

  struct Extent {
    std::uint64_t offset, size;
    std::size_t header;  // where the tensor's record stands
  };

  GgufFile& out_;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::uint64_t n_tensors_ = 0, n_values_ = 0;
  std::vector<Extent> extents_;
};

GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  GgufFile result;
  result.name_ = std::move(name);
  GgufParser(result, bytes).run();
  return result;
}

}  // namespace supersonic::io
