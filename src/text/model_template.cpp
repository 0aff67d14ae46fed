// The part of ModelText that compiles the chat template.
#include "core/error.h"
#include "text/chat_template.h"
#include "text/model_text.h"

namespace supersonic::text {

std::unique_ptr<ChatTemplate> ModelText::chat_template(std::string_view name) const {
  const std::string_view source = template_source(name);
  if (source.empty()) return nullptr;
  return std::make_unique<ChatTemplate>(source,
                                        fmt::format("chat template '{}' of {}", name, path_));
}

}  // namespace supersonic::text
