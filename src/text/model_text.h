// The text side of a model, from a GGUF file or a Hugging Face folder alike: tokenizer, chat
// template, the tokens that end a turn, and the generation defaults of its authors. Nothing of the
// weights is read.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/hf_config.h"
#include "text/encode.h"

namespace supersonic::io {
class GgufFile;
}

namespace supersonic::text {

class ChatTemplate;
class Tokenizer;

class ModelText {
 public:
  explicit ModelText(const std::string& path);     // throws Error(bad_file)
  explicit ModelText(const io::GgufFile& opened);  // the file must outlive this object
  ~ModelText();
  ModelText(ModelText&&) noexcept;

  const std::string& path() const { return path_; }
  Tokenizer tokenizer() const;

  // The template called `name`, else null; models with one template call it "default".
  std::unique_ptr<ChatTemplate> chat_template(std::string_view name = "default") const;
  std::vector<std::string> template_names() const;
  // The text of that template; empty when there is none.
  std::string_view template_source(std::string_view name = "default") const;

  // What the template's bos_token and eos_token stand for; empty when the model has none.
  std::string bos_text() const { return special_text(true); }
  std::string eos_text() const { return special_text(false); }

  // generation_config.json; of a GGUF file, which has none, all empty.
  io::GenerationConfig generation() const;

  // Ids that end an answer: those of the tokenizer and those of generation_config.json, ascending.
  std::vector<std::int32_t> stop_ids(const Tokenizer& tokenizer) const;

  // What the data pipeline asks of this model's tokenizer, which must outlive the result.
  TokenizerView view(const Tokenizer& tokenizer) const;

 private:
  std::string special_text(bool bos) const;

  std::string path_;
  std::unique_ptr<io::GgufFile> owned_;
  const io::GgufFile* gguf_ = nullptr;  // null: a folder
  io::TokenizerConfig config_;          // of a folder
};

}  // namespace supersonic::text
