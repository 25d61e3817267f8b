// Constants and counters: those of a manifest, and those of a saved state.

#include <cstdint>

#include "artifact/check.h"

namespace lcc {

namespace {

constexpr int64_t LARGEST = int64_t{1} << 53;  // what every reader of JSON keeps exactly

}  // namespace

void check_numbers(const Manifest& manifest) {
    const Numbers& constants = manifest.constants;
    const Numbers& counters = manifest.counters;
    for (const auto& each : constants) {
        require(counters.count(each.first) == 0, "counters: " + each.first + " is a constant, too");
    }
    for (const char* name :
         {"zero", "one", "capacity", "budget", "chunk_size", "reserved", "no_state"}) {
        require(constants.count(name) != 0, std::string("constants: no ") + name);
    }
    for (const char* name : {"used", "kept", "tokens", "n", "start", "layer", "protected", "known",
                             "left", "state"}) {
        require(counters.count(name) != 0, std::string("counters: no ") + name);
    }
    const CacheSizes& cache = manifest.cache;
    require(constants.at("capacity") == cache.capacity && constants.at("budget") == cache.budget &&
              constants.at("chunk_size") == cache.chunk_size,
          "constants: capacity, budget and chunk_size are not those of cache");
    require(cache.budget >= 1 && cache.chunk_size >= 1 && constants.at("reserved") >= 0 &&
              cache.budget < cache.capacity && cache.capacity < int64_t{1} << 40 &&
              cache.chunk_size < cache.capacity && constants.at("reserved") < cache.capacity &&
              cache.budget + cache.chunk_size + constants.at("reserved") <= cache.capacity,
          "constants: budget + chunk_size + reserved exceed capacity, or one is less than 1");
    require(counters.at("state") == constants.at("no_state") && constants.at("no_state") == -1,
          "counters: wanted state to be no_state, -1, at first");
    require(constants.at("zero") == 0 && constants.at("one") == 1,
          "constants: wanted zero to be 0 and one to be 1");
    for (const auto& [name, value] : constants) {
        require(value >= -1 && value <= LARGEST, "constants: " + name + " is " +
                                                   std::to_string(value) +
                                                   ", wanted -1 or more, at most 2**53");
    }
    for (const auto& [name, value] : counters) {
        require(value >= -1 && value <= (name == "seed" ? INT32_MAX : cache.capacity),
              "counters: " + name + " is " + std::to_string(value) +
                  " at first, wanted -1 or more, at most the capacity");
    }
}

void check_counters(const Manifest& manifest, const Numbers& constants, const Numbers& counters) {
    const auto range = [&](const std::string& name, int64_t least, int64_t most) {
        const int64_t value = counters.at(name);
        require(least <= value && value <= most,
              "counters: " + name + " is " + std::to_string(value) + ", wanted " +
                  std::to_string(least) + " to " + std::to_string(most));
    };
    for (const auto& each : manifest.counters) {
        require(counters.count(each.first) != 0, "counters: " + each.first + " is missing");
        range(each.first, -1, LARGEST);
    }
    require(counters.size() == manifest.counters.size(),
          "counters: there is one that is not of this artifact");
    for (const Group& group : manifest.groups) {
        range(group.used, 0,
              group.slots.named() ? constants.at(group.slots.name) : group.slots.number);
        range(group.kept, 0, counters.at(group.used));
    }
    const int64_t used = counters.at("used");
    const Size& rows = manifest.buffer("hidden")->shape.at(0);
    range("tokens", used, LARGEST);
    range("state", -1, (rows.named() ? constants.at(rows.name) : rows.number) - 1);
    range("protected", 0, used);
    range("known", 0, used);
    if (counters.count("seed") != 0) {
        range("seed", -1, INT32_MAX);  // programs take a number of 32 bits
    }
}

}  // namespace lcc
