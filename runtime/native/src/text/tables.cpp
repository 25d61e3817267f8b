#include "text/tables.h"

namespace lcc {
namespace {

std::uint32_t mixed(std::uint32_t x) {
    x ^= x >> 15;
    x *= 0x2C1B3C6DU;
    x ^= x >> 12;
    x *= 0x297A2D39U;
    return x ^ x >> 15;
}

std::size_t home(std::uint32_t hash, std::size_t slots) {
    return static_cast<std::size_t>(static_cast<std::uint64_t>(mixed(hash)) * slots >> 32);
}

std::uint32_t pair_hash(std::uint32_t left, std::uint32_t right) {
    return left * 0x9E3779B1U + right * 0x85EBCA77U;
}

}  // namespace

std::uint32_t Tree::below(std::uint32_t node, unsigned char byte) const {
    std::uint32_t low = nodes[3 * node];
    std::uint32_t high = low + nodes[3 * node + 1];
    while (low < high) {
        const std::uint32_t middle = low + (high - low) / 2;
        if (edges[2 * middle] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const bool found = low < nodes[3 * node] + nodes[3 * node + 1] && edges[2 * low] == byte;
    return found ? edges[2 * low + 1] : NONE;
}

std::uint32_t Tables::word(std::string_view content) const {
    if (content.size() > longest) {
        return NONE;
    }
    std::uint32_t hash = 2166136261U;
    for (const char each : content) {
        hash = (hash ^ static_cast<unsigned char>(each)) * 16777619U;
    }
    std::size_t slot = home(hash, words.size);
    while (words[slot] != NONE && token(words[slot]) != content) {
        slot = slot + 1 == words.size ? 0 : slot + 1;
    }
    return words[slot];
}

const std::uint32_t* Tables::pair(std::uint32_t left, std::uint32_t right) const {
    const std::size_t slots = pairs.size / 4;
    std::size_t slot = home(pair_hash(left, right), slots);
    while (pairs[4 * slot] != NONE) {
        if (pairs[4 * slot] == left && pairs[4 * slot + 1] == right) {
            return &pairs[4 * slot];
        }
        slot = slot + 1 == slots ? 0 : slot + 1;
    }
    return nullptr;
}

bool Tables::joined(std::uint32_t left, std::uint32_t right) const {
    const std::size_t slots = joins.size / 2;
    std::size_t slot = home(pair_hash(left, right), slots);
    while (joins[2 * slot] != NONE) {
        if (joins[2 * slot] == left && joins[2 * slot + 1] == right) {
            return true;
        }
        slot = slot + 1 == slots ? 0 : slot + 1;
    }
    return false;
}

}  // namespace lcc
