// Several transfers at a time. A connection to the hub's store has a ceiling of its own, and small
// files wait for round trips: up to a few at once pay, one file alone has one thread.
#pragma once
#include <cstddef>
#include <functional>

#include "hub/client.h"

namespace supersonic::hub {

// Runs task(client, i) for each i below count, on at most `jobs` threads with a client each. `poll`
// is called on this thread a hundred times a second and at the end; so is watch.say, whatever
// thread has something to say. The first error stops the others and is thrown.
void run_workers(const Settings& settings, const Watch& watch, std::size_t count, int jobs,
                 const std::function<void(Client&, std::size_t)>& task,
                 const std::function<void()>& poll);

}  // namespace supersonic::hub
