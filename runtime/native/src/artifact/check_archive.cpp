#include <set>

#include "artifact/check.h"

namespace lcc {

namespace {

std::map<std::string, const Column*> by_name(const Manifest& manifest) {
    std::map<std::string, const Column*> columns;
    for (const Column& column : manifest.archive) {
        require(columns.emplace(column.name, &column).second,
               "archive: " + column.name + " is there twice");
    }
    return columns;
}

// A row of the column has the dtype and the shape of a row of the buffer.
void check_pair(const std::map<std::string, const Column*>& columns, const BuffersByName& buffers,
                const std::string& column, const std::string& buffer, const std::string& where) {
    const auto one = columns.find(column);
    const auto other = buffers.find(buffer);
    require(one != columns.end(), where + ": no column " + column);
    require(other != buffers.end(), where + ": no buffer " + buffer);
    const Shape& shape = other->second->shape;
    bool fits = one->second->dtype == other->second->dtype &&
                shape.size() == one->second->shape.size() + 1;
    for (size_t i = 1; fits && i < shape.size(); ++i) {
        fits = !shape[i].named() && shape[i].number == one->second->shape[i - 1];
    }
    require(fits, where + ": a row of " + buffer + " has another dtype or shape than a row of " +
                     column);
}

}  // namespace

void check_columns(const Manifest& manifest, const BuffersByName& buffers) {
    require(manifest.archive.empty() == manifest.schedule.recall.empty(),
           "archive: wanted columns where there is a list recall, and only there");
    if (manifest.archive.empty()) {
        return;
    }
    for (const char* name : {"archiving", "archived", "archived_to", "leaving", "back", "row"}) {
        require(manifest.counters.count(name) != 0,
               std::string("counters: no ") + name + ", which an archive needs");
    }
    const auto scan = manifest.constants.find("scan_rows");
    require(scan != manifest.constants.end() && scan->second >= 1,
           "constants: wanted scan_rows of 1 or more");
    const auto chosen = buffers.find("rows");
    require(chosen != buffers.end() && chosen->second->role == "kept" &&
               chosen->second->dtype == Dtype::int64,
           "buffers: wanted rows, of role kept int64");
    by_name(manifest);
    for (const Column& column : manifest.archive) {
        bool fits = column.dtype == Dtype::float32 || column.dtype == Dtype::int64;
        int64_t total = 1;
        for (int64_t size : column.shape) {
            fits = fits && size >= 1 && size < (int64_t{1} << 32) / total;
            total = fits ? total * size : 1;
        }
        require(fits, "archive: " + column.name +
                         ": wanted float32 or int64, and sizes of 1 or more");
    }
}

void check_archive_use(const Manifest& manifest, const Block& block, const BuffersByName& buffers,
                       const std::string& where) {
    const auto columns = by_name(manifest);
    for (const std::string& name : block.grow) {
        const auto found = buffers.find(name);
        bool grows = false;
        if (found != buffers.end()) {
            for (const Size& size : found->second->shape) {
                grows = grows || manifest.counters.count(size.name) != 0;
            }
        }
        require(grows, where + ": grow: no buffer " + name + " whose size is a counter");
    }
    require(!block.append || manifest.counters.count(*block.append) != 0,
           where + ": append: no counter " + block.append.value_or(""));
    std::set<std::string> stored, all;
    const auto check_part = [&](const ArchiveUse& part, const int64_t* layer) {
        for (const auto& [buffer, from] : part.load) {
            check_pair(columns, buffers, named(from.first, layer), buffer, where);
            require(manifest.counters.count(from.second) + manifest.constants.count(from.second) !=
                       0,
                   where + ": load: no counter or constant " + from.second);
        }
        for (const auto& [buffer, column] : part.gather) {
            check_pair(columns, buffers, named(column, layer), buffer, where);
        }
        for (const auto& [column, buffer] : part.store) {
            check_pair(columns, buffers, named(column, layer), buffer, where);
            stored.insert(named(column, layer));
        }
    };
    check_part(block, nullptr);
    for (const Run& run : block.runs) {
        if (run.each.empty()) {
            check_part(run, nullptr);
        }
        for (int64_t layer : run.each) {
            check_part(run, &layer);
        }
    }
    for (const auto& each : columns) {
        all.insert(each.first);
    }
    require((stored.empty() && !block.append) || (block.append && stored == all),
           where + ": wanted every column to be appended at once");
}

void check_states(const Manifest& manifest, const BuffersByName& buffers) {
    std::map<std::string, const BufferSpec*> states;
    for (const auto& [name, spec] : buffers) {
        if (spec->role == "state") {
            states.emplace(name, spec);
            bool fits = spec->dtype == Dtype::float32;
            for (const Size& size : spec->shape) {
                fits = fits && !size.named();
            }
            require(fits, "buffers: " + name + ": wanted a state of float32 and of numbers");
        }
    }
    const auto snapshots = manifest.constants.find("snapshots");
    require(states.empty() || (snapshots != manifest.constants.end() && snapshots->second >= 1),
           "constants: wanted snapshots of 1 or more, for there are states");
    if (manifest.schedule.marks.empty()) {
        return;
    }
    std::set<std::string> seen;
    for (const auto& [state, mark] : manifest.schedule.marks) {
        for (const std::string& name : {state, mark}) {
            require(states.count(name) != 0,
                   "schedule: marks: no buffer " + name + " of role state");
            require(seen.insert(name).second, "schedule: marks: " + name + " is there twice");
        }
        require(states.at(state)->shape == states.at(mark)->shape,
               "schedule: marks: " + mark + " has another shape than " + state);
    }
    require(seen.size() == states.size(),
           "schedule: marks: wanted one mark of its own for each state");
    const auto newest = manifest.constants.find("newest");
    require(manifest.counters.count("marked") != 0 && newest != manifest.constants.end() &&
               newest->second >= 1,
           "schedule: marks: wanted a counter marked, and a constant newest");
}

}  // namespace lcc
