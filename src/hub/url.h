// Which host an address means, and where a redirect leads.
#pragma once
#include <string>

namespace supersonic::hub {

// "https://host:443", lower case; empty where the address is no http(s) address or names a user.
std::string origin_of(const std::string& url);
// Where a Location leads from `base`; empty where that is no address to go to: another scheme than
// http(s), or from https to http.
std::string redirected(const std::string& base, const std::string& location);

}  // namespace supersonic::hub
