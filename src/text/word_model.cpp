// The cache in front of Unigram, WordPiece and WordLevel, and the choice of the model.
#include "text/word_model.h"

#include "core/error.h"
#include "text/bpe.h"
#include "text/unigram.h"
#include "text/word_piece.h"

namespace supersonic::text {

void SpanModel::encode(std::string_view word, ModelScratch& scratch,
                       std::vector<int32_t>& out) const {
  if (word.size() > WordCache::kLongest) {
    segment(word, scratch);
    out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
    return;
  }
  WordCache::Entry& entry = scratch.cache.slot(word);
  if (entry.holds(word)) {
    out.insert(out.end(), entry.ids, entry.ids + entry.count);
    return;
  }
  segment(word, scratch);
  out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
  WordCache::keep(entry, word, scratch.ids.data(), scratch.ids.size());
}

void SpanModel::encode_followed(Stretch word, ModelScratch& scratch, std::vector<int32_t>& out,
                                std::vector<uint32_t>& ends) const {
  segment(word.text, scratch);
  out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
  for (const uint32_t stop : scratch.stops) ends.push_back(word.origin[stop - 1].end);
}

std::unique_ptr<WordModel> make_word_model(const ModelSpec& spec, bool raw_bytes) {
  switch (spec.kind) {
    case ModelSpec::unigram:
      return std::make_unique<Unigram>(spec);
    case ModelSpec::word_piece:
      return std::make_unique<WordPiece>(spec);
    case ModelSpec::word_level:
      return std::make_unique<WordLevel>(spec);
    case ModelSpec::bpe:
      break;
  }
  return std::make_unique<Bpe>(spec, raw_bytes);
}

}  // namespace supersonic::text
