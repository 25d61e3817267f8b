#include "engines/onnx_file.h"

#include <algorithm>
#include <set>
#include <vector>

#include "core/error.h"

namespace lcc {

namespace {

using Bytes = std::string_view;
using Listed = std::map<std::string, FileEntry>;

constexpr Bytes LOCATION = "location";
constexpr int DEEPEST = 4 * 32;  // messages in messages, four for each graph in a graph
constexpr const char* NONE = "not an ONNX program";
constexpr const char* CUT = "an ONNX program that is cut";
constexpr const char* NESTED = "graphs in graphs in graphs; wanted a program of lcc";

// The fields of a message, one after the other.
class FieldReader {
public:
    explicit FieldReader(Bytes message) : rest_(message) {}

    // Goes to the next field; false = there is none.
    bool next() {
        if (rest_.empty()) {
            return false;
        }
        const uint64_t tag = varint();
        if (tag >> 32 != 0) {  // a parser keeps the low bits: it would be another field
            throw artifact_error(NONE);
        }
        number = static_cast<uint32_t>(tag >> 3);
        inside = {};
        holds_bytes = (tag & 7) == 2;
        holds_number = (tag & 7) == 0;
        switch (tag & 7) {
            case 0: value = varint(); break;
            case 1: take(8); break;
            case 2: inside = take(varint()); break;
            case 5: take(4); break;
            default: throw artifact_error(NONE);
        }
        return true;
    }

    uint32_t number = 0;
    bool holds_bytes = false, holds_number = false;  // else it is a float
    Bytes inside;
    uint64_t value = 0;

    bool at_end() const { return rest_.empty(); }

    uint64_t varint() {
        uint64_t value = 0;
        for (size_t i = 0; i < rest_.size() && i < 10; ++i) {
            const auto byte = static_cast<unsigned char>(rest_[i]);
            value |= static_cast<uint64_t>(byte & 127) << 7 * i;
            if (byte < 128) {
                rest_.remove_prefix(i + 1);
                return value;
            }
        }
        throw artifact_error(CUT);
    }

private:
    Bytes take(uint64_t size) {
        if (size > rest_.size()) {
            throw artifact_error(CUT);
        }
        const Bytes taken = rest_.substr(0, static_cast<size_t>(size));
        rest_.remove_prefix(static_cast<size_t>(size));
        return taken;
    }

    Bytes rest_;
};

// Messages that lead to tensors (onnx.proto).
enum class Message { model, training, function, graph, node, attribute, sparse, tensor, entry };

struct Path {
    Message from;
    uint32_t number;  // of a field
    Message to;
};

constexpr Path PATHS[] = {
    {Message::model, 7, Message::graph},
    {Message::model, 20, Message::training},
    {Message::model, 25, Message::function},
    {Message::training, 1, Message::graph},
    {Message::training, 2, Message::graph},
    {Message::function, 7, Message::node},
    {Message::function, 11, Message::attribute},
    {Message::graph, 1, Message::node},
    {Message::graph, 5, Message::tensor},
    {Message::graph, 15, Message::sparse},
    {Message::node, 5, Message::attribute},
    {Message::attribute, 5, Message::tensor},
    {Message::attribute, 6, Message::graph},
    {Message::attribute, 10, Message::tensor},
    {Message::attribute, 11, Message::graph},
    {Message::attribute, 22, Message::sparse},
    {Message::attribute, 23, Message::sparse},
    {Message::sparse, 1, Message::tensor},
    {Message::sparse, 2, Message::tensor},
    {Message::tensor, 13, Message::entry},
};

const Path* path(Message from, uint32_t number) {
    for (const Path& each : PATHS) {
        if (each.from == from && each.number == number) {
            return &each;
        }
    }
    return nullptr;
}

// With control characters and what is no ASCII as \xNN: for messages.
std::string shown(Bytes name) {
    constexpr char DIGITS[] = "0123456789abcdef";
    std::string text;
    for (const char each : name.substr(0, 200)) {
        const auto byte = static_cast<unsigned char>(each);
        if (byte < 32 || byte > 126) {
            text += {'\\', 'x', DIGITS[byte >> 4], DIGITS[byte & 15]};
        } else {
            text += each;
        }
    }
    return text;
}

// An entry of a tensor's external data: a key and a value.
void check_entry(Bytes entry, const Listed& listed) {
    Bytes key, value;
    int keys = 0, values = 0, others = 0;
    for (FieldReader field(entry); field.next();) {
        if (!field.holds_bytes) {
            continue;
        }
        if (field.number == 1) {
            key = field.inside;
            ++keys;
        } else if (field.number == 2) {
            value = field.inside;
            ++values;
        } else {
            ++others;
        }
    }
    if (keys != 1 || values != 1 || others != 0) {
        throw artifact_error("an entry without one key and one value; wanted an ONNX program");
    }
    if (key == LOCATION && listed.count(std::string(value)) == 0) {
        throw artifact_error("it reads weights from '" + shown(value) +
                             "', which the manifest does not list");
    }
}

// Of a message that may name files: the name of the key is among its bytes.
void check_locations(Bytes message, Message kind, const Listed& listed, int depth) {
    if (depth > DEEPEST) {
        throw artifact_error(NESTED);
    }
    if (kind == Message::entry) {
        check_entry(message, listed);
        return;
    }
    for (FieldReader field(message); field.next();) {
        const Path* leads = field.holds_bytes ? path(kind, field.number) : nullptr;
        if (leads != nullptr && field.inside.find(LOCATION) != Bytes::npos) {
            check_locations(field.inside, leads->to, listed, depth + 1);
        }
    }
}

struct Node {
    Bytes kind;
    std::vector<Bytes> inputs, outputs, graphs;
    bool wide = false;  // it is told a number of more than 32 bits
    std::vector<std::vector<uint64_t>> num_outputs;  // what attributes of this name say
};

// Whether a number of 64 bits, with its sign in two's complement, is more than an int32.
bool is_wide(uint64_t number) {
    return number >= uint64_t{1} << 31 && number < ~uint64_t{0} - 0x7fffffff;
}

// The graphs and whole numbers of an attribute; several numbers come one by one or together.
void read_attribute(Bytes message, Node& node) {
    std::vector<uint64_t> told;
    bool counts_outputs = false;
    for (FieldReader part(message); part.next();) {
        if (part.holds_bytes && (part.number == 6 || part.number == 11)) {
            node.graphs.push_back(part.inside);
        } else if (part.holds_number && (part.number == 3 || part.number == 8)) {
            told.push_back(part.value);
        } else if (part.holds_bytes && part.number == 8) {
            for (FieldReader numbers(part.inside); !numbers.at_end();) {
                told.push_back(numbers.varint());
            }
        } else if (part.holds_bytes && part.number == 1) {
            counts_outputs = counts_outputs || part.inside == "num_outputs";
        }
    }
    node.wide = node.wide || std::any_of(told.begin(), told.end(), is_wide);
    if (counts_outputs) {
        node.num_outputs.push_back(std::move(told));
    }
}

Node read_node(Bytes message) {
    Node node;
    for (FieldReader part(message); part.next();) {
        if (!part.holds_bytes) {
            continue;
        }
        switch (part.number) {
            case 1: node.inputs.push_back(part.inside); break;
            case 2: node.outputs.push_back(part.inside); break;
            case 4: node.kind = part.inside; break;
            case 5: read_attribute(part.inside, node); break;
            default: break;
        }
    }
    return node;
}

// The only graphs in nodes are bodies of loops as often as a tensor has elements.
void check_graph(Bytes graph, bool inner) {
    std::set<Bytes> sizes;
    std::vector<Node> loops;
    for (FieldReader field(graph); field.next();) {
        if (field.number != 1 || !field.holds_bytes) {
            continue;
        }
        Node node = read_node(field.inside);
        if (node.wide && node.kind != "Constant") {  // that one's numbers are a tensor's
            throw artifact_error(shown(node.kind.substr(0, 40)) +
                                 " is told a number of more than 32 bits");
        }
        for (const std::vector<uint64_t>& told : node.num_outputs) {
            // ONNX Runtime ends the process where a Split has more.
            if (node.kind == "Split" && told != std::vector<uint64_t>{node.outputs.size()}) {
                throw artifact_error("Split has " + std::to_string(node.outputs.size()) +
                                     " outputs, and is told another number of them");
            }
        }
        if (node.kind == "Size") {
            sizes.insert(node.outputs.begin(), node.outputs.end());
        }
        if (inner && !node.graphs.empty()) {
            throw artifact_error(NESTED);
        }
        for (const Bytes body : node.graphs) {
            check_graph(body, true);
        }
        if (!node.graphs.empty() || node.kind == "Loop") {
            loops.push_back(std::move(node));
        }
    }
    for (const Node& node : loops) {
        // The second input is a condition, which ends a loop earlier and never later.
        if (node.kind != "Loop" || node.inputs.empty() || sizes.count(node.inputs[0]) == 0) {
            throw artifact_error(shown(node.kind.substr(0, 40)) +
                                 " runs a graph; wanted no graph in a node, but for a loop over a "
                                 "tensor");
        }
    }
}

}  // namespace

void check_program(Bytes data, const Listed& listed) {
    if (data.size() >= 8 && data.substr(4, 4) == "ORTM") {
        throw artifact_error(NONE);  // ONNX Runtime would take it for its own format
    }
    check_locations(data, Message::model, listed, 0);
    for (FieldReader field(data); field.next();) {
        if (field.number == 20 || field.number == 25) {
            throw artifact_error("it has functions or training graphs; wanted a program of lcc");
        }
        if (field.number == 7 && field.holds_bytes) {
            check_graph(field.inside, false);
        }
    }
}

}  // namespace lcc
