#include "artifact/read_schedule.h"

#include "artifact/fields.h"
#include "core/error.h"

namespace lcc {

namespace {

using Where = const std::string&;

// What a tensor or a buffer is; see docs/format.md and lcc/ir/roles.py.
const char* const ROLES[] = {"tokens", "positions", "counter",        "rows",        "slots",
                             "hidden", "logits",    "key",            "value",       "queries",
                             "kept",   "state",     "token_position", "entry_score", "archived"};

std::string read_role(const Fields& fields) {
    std::string role = fields.text("role");
    for (const char* each : ROLES) {
        if (role == each) {
            return role;
        }
    }
    throw artifact_error(fields.at("role") + " is " + role + ", which this lcc does not know");
}

Size read_size(const Json& json, Where where) {
    Size size;
    if (json.is(Json::Kind::text)) {
        size.name = json.text(where);
    } else {
        size.number = json.integer(where);
    }
    return size;
}

Pair read_pair(const Json& json, Where where) {
    const Json::List& items = json.items(where);
    if (items.size() != 2) {
        throw artifact_error(where + " has " + std::to_string(items.size()) + " items, wanted 2");
    }
    return {items[0].text(where), items[1].text(where)};
}

std::optional<Pair> maybe_pair(const Fields& fields, const char* name) {
    if (const Json* json = fields.find(name)) {
        return read_pair(*json, fields.at(name));
    }
    return std::nullopt;
}

std::optional<std::string> maybe_text(const Fields& fields, const char* name) {
    if (fields.has(name)) {
        return fields.text(name);
    }
    return std::nullopt;
}

std::optional<int64_t> maybe_integer(const Fields& fields, const char* name) {
    if (fields.has(name)) {
        return fields.integer(name);
    }
    return std::nullopt;
}

Copied read_three(const Json& json, Where where) {
    const Json::List& items = json.items(where);
    if (items.size() != 3) {
        throw artifact_error(where + " has " + std::to_string(items.size()) + " items, wanted 3");
    }
    return {items[0].text(where), items[1].text(where), items[2].text(where)};
}

TensorSpec read_tensor(const Json& json, Where where) {
    const Fields fields(json, where, {"name", "role", "dtype", "shape", "layer"});
    return {fields.text("name"), read_role(fields), read_dtype(fields.get("dtype"), where),
            fields.list<Size>("shape", read_size)};
}

ProgramEntry read_program(const Json& json, Where where) {
    const Fields fields(json, where, {"file", "inputs", "outputs", "updates"});
    return {fields.text("file"), fields.list<TensorSpec>("inputs", read_tensor),
            fields.list<TensorSpec>("outputs", read_tensor),
            fields.map<std::string>("updates", read_text)};
}

Bound read_bound(const Json& json, Where where) {
    if (json.is(Json::Kind::text)) {
        return {json.text(where), "", ""};
    }
    const Copied rows = read_three(json, where);
    if (rows.from.empty() || rows.to.empty()) {
        throw artifact_error(where + " has a counter without a name");
    }
    return {rows.buffer, rows.from, rows.to};
}

Counted read_counted(const Json& json, Where where) {
    if (json.is(Json::Kind::text)) {
        return {json.text(where), ""};
    }
    const Pair pair = read_pair(json, where);
    if (pair.second.empty()) {
        throw artifact_error(where + " has a counter without a name");
    }
    return {pair.first, pair.second};
}

void read_archive_use(const Fields& fields, ArchiveUse& use) {
    use.load = fields.map<Pair>("load", read_pair);
    use.gather = fields.map<std::string>("gather", read_text);
    use.store = fields.map<std::string>("store", read_text);
}

Run read_run(const Json& json, Where where) {
    const Fields fields(json, where, {"run", "one", "each", "bind", "ints", "read", "swap", "load",
                                      "gather", "store"});
    Run run;
    run.run = fields.text("run");
    run.one = maybe_text(fields, "one");
    run.each = fields.list<int64_t>("each", read_integer);
    run.bind = fields.map<Bound>("bind", read_bound);
    run.ints = fields.map<Counted>("ints", read_counted);
    run.read = fields.map<std::string>("read", read_text);
    run.swap = fields.list<Pair>("swap", read_pair);
    read_archive_use(fields, run);
    return run;
}

Over read_over(const Json& json, Where where) {
    const Fields fields(json, where, {"most", "ids", "count", "rows"});
    Over over;
    over.most = fields.text("most");
    if (fields.has("ids")) {
        const std::string ids = fields.text("ids");
        if (ids == "text") {
            over.ids = Ids::text;
        } else if (ids == "catalyst") {
            over.ids = Ids::catalyst;
        } else if (ids == "newest") {
            over.ids = Ids::newest;
        } else {
            throw artifact_error(fields.at("ids") + " is " + ids + ", which this lcc does not know");
        }
    }
    over.count = maybe_text(fields, "count");
    over.rows = maybe_pair(fields, "rows");
    return over;
}

Block read_block(const Json& json, Where where) {
    const Fields fields(json, where, {"over", "when", "do", "after", "swap", "add", "lend", "count",
                                      "set", "grow", "append", "load", "gather", "store"});
    Block block;
    block.runs = fields.list<Run>("do", read_run);
    if (const Json* over = fields.find("over")) {
        block.over = read_over(*over, fields.at("over"));
    }
    block.when = maybe_pair(fields, "when");
    block.grow = fields.list<std::string>("grow", read_text);
    block.append = maybe_text(fields, "append");
    block.after = fields.list<Copied>("after", read_three);
    block.swap = fields.list<Pair>("swap", read_pair);
    block.add = fields.list<std::string>("add", read_text);
    block.lend = fields.boolean("lend", false);
    block.count = maybe_text(fields, "count");
    block.set = fields.map<std::string>("set", read_text);
    read_archive_use(fields, block);
    return block;
}

Blocks read_blocks(const Json& json, Where where) {
    Blocks blocks;
    for (const Json& each : json.items(where)) {
        blocks.push_back(read_block(each, where + "[" + std::to_string(blocks.size()) + "]"));
    }
    return blocks;
}

Turns read_turns(const Json& json, Where where) {
    const Fields fields(json, where, {"begin", "system", "user", "assistant", "prompt",
                                      "default_system", "strip"});
    Turns turns;
    turns.begin = fields.text("begin", "");
    turns.system = maybe_pair(fields, "system");
    turns.user = maybe_pair(fields, "user");
    turns.assistant = maybe_pair(fields, "assistant");
    turns.prompt = fields.text("prompt", "");
    turns.default_system = maybe_text(fields, "default_system");
    turns.strip = fields.boolean("strip", false);
    return turns;
}

Catalyst read_catalyst(const Json& json, Where where) {
    const Fields fields(json, where, {"ids", "beginning"});
    Catalyst catalyst;
    catalyst.ids = fields.list<int32_t>("ids", read_id);
    catalyst.beginning = fields.integer("beginning", 0);
    if (fields.has("ids") == fields.has("beginning") || catalyst.beginning < 0) {
        throw artifact_error(where + ": wanted ids or beginning");
    }
    return catalyst;
}

}  // namespace

Dtype read_dtype(const Json& json, Where where) {
    const std::string& name = json.text(where);
    for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::int32, Dtype::int64}) {
        if (name == name_of(dtype)) {
            return dtype;
        }
    }
    throw artifact_error(where + " is " + name + ", wanted float32, float16, int32 or int64");
}

Programs read_programs(const Json& json, Where where) {
    Programs programs;
    for (const auto& [name, each] : json.fields(where)) {
        programs.emplace(name, read_program(each, where + "." + name));
    }
    return programs;
}

BufferSpec read_buffer(const Json& json, Where where) {
    const Fields fields(json, where,
                        {"name", "role", "dtype", "shape", "layer", "group", "axis", "saved"});
    BufferSpec spec;
    spec.name = fields.text("name");
    spec.role = read_role(fields);
    spec.dtype = read_dtype(fields.get("dtype"), fields.at("dtype"));
    spec.shape = fields.list<Size>("shape", read_size);
    spec.layer = maybe_integer(fields, "layer");
    spec.group = maybe_text(fields, "group");
    const int64_t axis = fields.integer("axis", 0);
    if (axis < 0 || static_cast<size_t>(axis) >= spec.shape.size()) {
        throw artifact_error(where + ": axis " + std::to_string(axis) + " of a shape of " +
                             std::to_string(spec.shape.size()));
    }
    spec.axis = static_cast<size_t>(axis);
    spec.saved = maybe_pair(fields, "saved");
    return spec;
}

Column read_column(const Json& json, Where where) {
    const Fields fields(json, where, {"name", "role", "dtype", "shape", "layer"});
    return {fields.text("name"), read_role(fields), read_dtype(fields.get("dtype"), where),
            fields.list<int64_t>("shape", read_integer), maybe_integer(fields, "layer")};
}

Group read_group(const Json& json, Where where) {
    const Fields fields(json, where, {"name", "used", "kept", "slots", "layers", "align"});
    return {fields.text("name"), fields.text("used"), fields.text("kept"),
            read_size(fields.get("slots"), fields.at("slots")),
            fields.list<int64_t>("layers", read_integer), maybe_text(fields, "align")};
}

Schedule read_schedule(const Json& json, Where where) {
    const Fields fields(json, where, {"read", "cycle", "logits", "nll", "flush", "recall",
                                      "compact", "marks", "log"});
    Schedule schedule;
    const auto blocks = [&](const char* name) {
        const Json* found = fields.find(name);
        return found == nullptr ? Blocks() : read_blocks(*found, fields.at(name));
    };
    for (const char* name : {"read", "logits", "nll"}) {
        fields.get(name);
    }
    schedule.read = blocks("read");
    schedule.cycle = blocks("cycle");
    schedule.logits = blocks("logits");
    schedule.nll = blocks("nll");
    schedule.flush = blocks("flush");
    schedule.recall = blocks("recall");
    schedule.compact = fields.map<Blocks>("compact", read_blocks);
    schedule.marks = fields.list<Pair>("marks", read_pair);
    schedule.log = fields.boolean("log", false);
    return schedule;
}

TextFacts read_text_facts(const Json& json, Where where) {
    const Fields fields(json, where,
                        {"prefix", "ends", "separator", "special", "stops", "catalyst", "turns",
                         "no_tables"});
    TextFacts text;
    text.prefix = fields.list<int32_t>("prefix", read_id);
    text.ends = fields.list<int32_t>("ends", read_id);
    text.separator = fields.list<int32_t>("separator", read_id);
    text.special = fields.list<int32_t>("special", read_id);
    text.stops = fields.list<std::string>("stops", read_text);
    if (const Json* catalyst = fields.find("catalyst")) {
        text.catalyst = read_catalyst(*catalyst, fields.at("catalyst"));
    }
    if (const Json* turns = fields.find("turns")) {
        text.turns = read_turns(*turns, fields.at("turns"));
    }
    return text;
}

}  // namespace lcc
