// Chat: messages in the model's own template, as the pieces of the manifest's `turns`.

#include <algorithm>

#include "artifact/json_parser.h"
#include "core/error.h"
#include "session/session.h"

namespace lcc {

namespace {

// White space as Python's str.strip sees it.
bool is_space(std::string_view character) {
    static const char* const spaces[] = {
        " ", "\t", "\n", "\v", "\f", "\r", "\x1c", "\x1d", "\x1e", "\x1f", "\u0085", "\u00a0",
        "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007",
        "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
    for (const char* space : spaces) {
        if (character == space) {
            return true;
        }
    }
    return false;
}

const Turns& turns_of(const Manifest& manifest) {
    if (!manifest.text.turns) {
        throw unsupported("this artifact has no chat template in pieces (text.turns); use "
                          "lcc_feed and lcc_generate_start");
    }
    return *manifest.text.turns;
}

const std::optional<Pair>& pieces_of(const Turns& turns, const std::string& role) {
    static const std::optional<Pair> none;
    return role == "system"      ? turns.system
           : role == "user"      ? turns.user
           : role == "assistant" ? turns.assistant
                                 : none;
}

// What comes before the first message of a conversation.
std::string opening(const Turns& turns, bool has_system) {
    std::string text = turns.begin;
    if (!has_system && turns.default_system && turns.system) {
        text += turns.system->first + *turns.default_system + turns.system->second;
    }
    return text;
}

}  // namespace

std::string stripped(const Turns& turns, const std::string& content) {
    if (!turns.strip) {
        return content;
    }
    size_t begin = 0, end = content.size(), place = 0;
    bool any = false;
    while (place < content.size()) {
        const size_t length = std::max<size_t>(1, utf8_length(content, place));
        if (!is_space(std::string_view(content).substr(place, length))) {
            begin = any ? begin : place;
            end = place + length;
            any = true;
        }
        place += length;
    }
    return any ? content.substr(begin, end - begin) : "";
}

std::pair<std::string, std::string> user_turn(const Manifest& manifest) {
    const Turns& turns = turns_of(manifest);
    if (!turns.user) {
        throw unsupported("the chat template of this artifact has no user messages");
    }
    return {opening(turns, false) + turns.user->first, turns.user->second + turns.prompt};
}

// `plain`: control tokens in messages are marked. `alone`: set where the text is a conversation of
// its own, and does not go on from what was read.
std::string Session::render(const std::vector<Message>& messages, bool plain, bool& alone) const {
    const Turns& turns = turns_of(model_->manifest);
    if (messages.empty()) {
        throw config_error("messages is empty; wanted one at least");
    }
    alone = turn_.end != reader_.tokens() || turn_.end <= 0;
    const bool has_system = messages[0].role == "system";
    std::string text;
    if (alone) {
        text = opening(turns, has_system);
    } else if (turns.assistant) {
        text = turns.assistant->second;  // what ends the last answer
        if (turn_.ended) {               // and is in the session already
            const std::string end = model_->text().token_bytes(*turn_.ended);
            if (text.compare(0, end.size(), end) == 0) {
                text.erase(0, end.size());
            }
        }
    }
    for (size_t i = 0; i < messages.size(); ++i) {
        const std::string& role = messages[i].role;
        const std::optional<Pair>& pieces = pieces_of(turns, role);
        if (!pieces) {
            throw config_error("messages[" + std::to_string(i) + "]: the template has no role \"" +
                               role + "\"");
        }
        if (role == "system" && (i > 0 || !alone)) {
            throw config_error("messages[" + std::to_string(i) +
                               "]: only the first message of a conversation is a system message");
        }
        const std::string content = stripped(turns, messages[i].content);
        text += pieces->first + (plain ? model_->text().mark(content) : content) + pieces->second;
    }
    return text + turns.prompt;
}

void Session::start_chat(const std::vector<Message>& messages, const GenerateOptions& options) {
    const Moment begun = std::chrono::steady_clock::now();
    check_answer(options, true);
    const Tokenizer& tokenizer = model_->text();
    bool alone = true;
    const std::string text = render(messages, options.plain, alone);
    FeedOptions feed;
    feed.how.asks = options.recall;
    feed.prefix = false;  // the template has its own
    read_text(text, feed, alone);
    const TokenIds ids = tokenizer.encode(text, Reading::MARKED);  // for the penalty
    start_answer(options, begun, &ids);
}

}  // namespace lcc
