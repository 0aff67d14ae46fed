// tokenizer.model: SentencePiece's ModelProto in protobuf's wire format (a key with field number
// and kind, then a varint, 4 or 8 bytes, or a length and so many bytes). Only the fields that
// decide ids are read; the others are skipped by their kind, as protobuf wants it.
#include <bit>
#include <optional>

#include "core/error.h"
#include "text/sentence_piece.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 24, kMaxPieceBytes = 1 << 16;

// One message's fields, in order.
class Message {
 public:
  Message(std::string_view bytes, size_t offset, std::string_view where, std::string_view name)
      : bytes_(bytes), offset_(offset), where_(where), name_(name) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field = static_cast<uint32_t>(key >> 3);
    need(key >> 3 > 0 && key >> 3 < 1u << 29, "has a field number that is out of range");
    kind_ = static_cast<uint32_t>(key & 7);
    switch (kind_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        text_ = take(8);
        break;
      case 2:
        text_ = take(varint());
        break;
      case 5:
        text_ = take(4);
        break;
      default:
        need(false, "has a field of an unknown kind");
    }
    return true;
  }
  int64_t number() const {
    need(kind_ == 0, "has another type than a number");
    return static_cast<int64_t>(number_);
  }
  bool flag() const { return number() != 0; }
  float real() const {
    need(kind_ == 5, "has another type than a 32-bit float");
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) bits |= uint32_t{static_cast<unsigned char>(text_[i])} << 8 * i;
    return std::bit_cast<float>(bits);
  }
  std::string_view text() const {
    need(kind_ == 2, "has another type than bytes");
    return text_;
  }
  Message message(std::string_view name) const {
    return {text(), offset_ + at_ - text_.size(), where_, name};
  }
  void need(bool held, std::string_view what) const {
    CHECK_FILE(held, "{}: {} field {} before byte {} {}", where_, name_, field, offset_ + at_,
               what);
  }

  uint32_t field = 0;

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
      need(at_ < bytes_.size(), "ends too early");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    need(false, "has a number of more than 64 bits");
    return 0;
  }
  std::string_view take(uint64_t size) {
    need(size <= bytes_.size() - at_, "ends too early");
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }

  std::string_view bytes_;
  size_t offset_, at_ = 0;
  std::string_view where_, name_, text_;
  uint32_t kind_ = 0;
  uint64_t number_ = 0;
};

void read_piece(Message m, SentencePieces& out) {
  std::string token;
  float score = 0;
  int32_t type = kNormal;
  while (m.next()) {
    if (m.field == 1) token = m.text();
    if (m.field == 2) score = m.real();
    if (m.field == 3) {
      m.need(m.number() >= kNormal && m.number() <= kByte, "is no type of a piece");
      type = static_cast<int32_t>(m.number());
    }
  }
  m.need(token.size() <= kMaxPieceBytes, "is too long for a piece");
  m.need(valid_utf8(token), "is not UTF-8");
  m.need(out.tokens.size() < kMaxPieces, "is one piece too many");
  out.tokens.push_back(std::move(token));
  out.scores.push_back(score);
  out.types.push_back(type);
}

void read_trainer(Message m, SentencePieces& out) {
  const auto id = [&] {
    m.need(m.number() >= -1 && m.number() < static_cast<int64_t>(kMaxPieces), "is no id");
    return static_cast<int32_t>(m.number());
  };
  while (m.next()) {
    switch (m.field) {
      case 3:
        m.need(m.number() == 1 || m.number() == 2,
               "(model_type) is neither Unigram nor BPE; words and characters are not supported");
        out.unigram = m.number() == 1;
        break;
      case 24:
        m.need(!m.flag(), "(treat_whitespace_as_suffix) is not supported");
        break;
      case 35:
        out.byte_fallback = m.flag();
        break;
      case 40:
        out.unk = id();
        break;
      case 41:
        out.bos = id();
        break;
      case 42:
        out.eos = id();
        break;
      case 43:
        out.pad = id();
        break;
    }
  }
}

void read_normalizer(Message m, SentencePieces& out) {
  while (m.next()) {
    switch (m.field) {
      case 2:
        out.charsmap = m.text();
        break;
      case 3:
        out.space_in_front = m.flag();
        break;
      case 4:
        out.merge_spaces = m.flag();
        break;
      case 5:
        m.need(m.flag(), "(escape_whitespaces: false) is not supported");
        break;
    }
  }
}

void refuse_denormalizer(Message m) {
  while (m.next())
    if (m.field == 2) m.need(m.text().empty(), "(a map that decoding applies) is not supported");
}

}  // namespace

SentencePieces read_sentence_piece_model(std::string_view bytes, std::string_view where) {
  SentencePieces out;
  out.unigram = true;  // the format's defaults
  out.merge_spaces = true;
  out.byte_fallback = false;
  out.unk = 0, out.bos = 1, out.eos = 2;
  Message m(bytes, 0, where, "ModelProto");
  while (m.next()) {
    if (m.field == 1) read_piece(m.message("SentencePiece"), out);
    if (m.field == 2) read_trainer(m.message("TrainerSpec"), out);
    if (m.field == 3) read_normalizer(m.message("NormalizerSpec"), out);
    if (m.field == 5) refuse_denormalizer(m.message("denormalizer_spec"));
  }
  CHECK_FILE(!out.tokens.empty(), "{}: no pieces; is it a SentencePiece model?", where);
  const auto n = static_cast<int32_t>(out.tokens.size());
  for (int32_t* id : {&out.unk, &out.bos, &out.eos, &out.pad})
    if (*id >= n) *id = -1;
  return out;
}

}  // namespace supersonic::text
