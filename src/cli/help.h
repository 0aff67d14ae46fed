// Help: the overview, one command's page, and the reference in Markdown (docs/cli.md), all from the
// same declarations.
#pragma once
#include <string>

#include "cli/command.h"

namespace supersonic::cli {

std::string overview();
std::string help_page(const Command& command, const Options& options, std::size_t width);
std::string markdown_reference();
std::string formats_reference();  // docs/formats.md

}  // namespace supersonic::cli
