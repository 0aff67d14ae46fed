// Large files to the hub's store, by the batch protocol of git LFS: the hub says for each whether
// it has it, and else where it goes, as one PUT or as numbered parts with a closing POST.
#pragma once
#include <vector>

#include "hub/push.h"

namespace supersonic::hub {

// Returns the bytes sent. Throws Error(network); what had arrived is not sent by the next push.
std::uint64_t upload_large(const Settings& settings, const Watch& watch, Client& client,
                           const PushOptions& options, const std::vector<PushFile*>& files,
                           const Push::Progress& progress);

}  // namespace supersonic::hub
