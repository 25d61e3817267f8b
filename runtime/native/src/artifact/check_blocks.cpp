// Whether a block of a schedule can be run: its loop, its names, its rows.

#include <algorithm>

#include "artifact/check.h"

namespace lcc {

namespace {

void check_over(const Manifest& manifest, const Block& block, const std::string& list,
                const std::string& where) {
    if (!block.over) {
        return;
    }
    const Over& over = *block.over;
    require(over.ids.has_value() != over.rows.has_value(),
          where + ": over has ids and rows, or neither; wanted one of them");
    require((over.ids == Ids::newest) == over.count.has_value(),
          where + ": over has a count where ids are newest, only");
    const auto most = manifest.constants.find(over.most);
    require(most == manifest.constants.end() || most->second >= 1,
          where + ": most is " + over.most + ", which is 0 or less");
    if (over.rows) {
        const auto added = [&](const std::string& name) {
            return std::count(block.add.begin(), block.add.end(), name);
        };
        bool ends = added(over.rows->first) == 1 && added(over.rows->second) == 0;
        for (const std::string& name : {over.rows->first, over.rows->second}) {
            ends = ends && block.set.count(name) == 0 && block.count != name;
            for (const Run& run : block.runs) {
                for (const auto& each : run.read) {
                    ends = ends && each.second != name;
                }
            }
        }
        require(ends, where + ": " + over.rows->first + " does not come to " + over.rows->second +
                        " by being added to: a loop without an end");
        return;
    }
    const bool reads = list == "read" || list == "nll";
    const bool asks = list == "cycle" || list == "recall";
    require((over.ids == Ids::text && reads) || (over.ids == Ids::catalyst && asks) ||
              (over.ids == Ids::newest && list == "cycle"),
          where + ": a loop over ids that this list does not have");
}

// Every counter and constant that a block names exists, and only counters are changed.
void check_names(const Manifest& manifest, const Block& block, const std::string& where) {
    Names changed = block.add, names;
    for (const auto& [counter, source] : block.set) {
        changed.push_back(counter);
        names.push_back(source);
    }
    if (block.count) {
        changed.push_back(*block.count);
    }
    if (block.when) {
        names.insert(names.end(), {block.when->first, block.when->second});
    }
    for (const Copied& row : block.after) {
        names.insert(names.end(), {row.from, row.to});
    }
    if (block.over) {
        names.push_back(block.over->most);
        if (block.over->rows) {
            names.insert(names.end(), {block.over->rows->first, block.over->rows->second});
        }
        if (block.over->count) {
            names.push_back(*block.over->count);
        }
    }
    for (const Run& run : block.runs) {
        for (const auto& each : run.read) {
            changed.push_back(each.second);
        }
        for (const auto& each : run.ints) {
            names.push_back(each.second.first);
            names.push_back(each.second.count.empty() ? "zero" : each.second.count);
        }
        for (const auto& each : run.bind) {
            if (!each.second.first.empty()) {
                names.insert(names.end(), {each.second.first, each.second.count});
            }
        }
    }
    for (const std::string& name : changed) {
        require(manifest.counters.count(name) != 0, where + ": no counter " + name);
    }
    for (const std::string& name : names) {
        require(manifest.counters.count(name) + manifest.constants.count(name) != 0,
              where + ": no counter or constant " + name);
    }
}

void check_memory(const Block& block, const BuffersByName& buffers, const std::string& where) {
    for (const Copied& row : block.after) {
        const auto found = buffers.find(row.buffer);
        require(found != buffers.end(), where + ": after: no buffer " + row.buffer);
        require(found->second->role != "key" && found->second->role != "value",
              where + ": after: " + row.buffer + " may lie on a device; no row of it is copied");
    }
    for (const Pair& pair : block.swap) {
        check_swap(pair, buffers, where);
    }
}

}  // namespace

void check_block(const Manifest& manifest, const Block& block, const BuffersByName& buffers,
                 const std::string& list, const std::string& where) {
    check_over(manifest, block, list, where);
    check_names(manifest, block, where);
    check_memory(block, buffers, where);
}

}  // namespace lcc
