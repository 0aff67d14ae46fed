// Which host an address means, and where a redirect leads.
#pragma once
#include <string>

namespace supersonic::hub {

// "https://host:443", lower case; empty where the address is no http(s) address or names a user.
std::string origin_of(const std::string& url);
// Whether an origin is plain http to this machine itself: localhost, 127.x.x.x, [::1].
bool is_this_machine(const std::string& origin);
// Where a Location leads from `base`; empty where that is no address to go to: another scheme than
// http(s), or from https to http.
std::string redirected(const std::string& base, const std::string& location);

// A mirror of the hub passes on addresses of the hub itself: the same address at `endpoint`.
std::string at_endpoint(const std::string& url, const std::string& endpoint);

}  // namespace supersonic::hub
