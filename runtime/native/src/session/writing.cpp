// The next token, until a text ends; and its text in pieces.

#include <algorithm>

#include "core/error.h"
#include "session/session.h"

namespace lcc {

namespace {

constexpr size_t CONTEXT = 4;  // ids before the first one generated

std::optional<int64_t> limit_of(const GenerateOptions& options, const Json& defaults) {
    if (options.max_new_tokens) {
        if (*options.max_new_tokens < 1) {
            throw config_error("max_new_tokens is " + std::to_string(*options.max_new_tokens) +
                               ", wanted a whole number, 1 or more");
        }
        return options.max_new_tokens;
    }
    const auto& fields = defaults.fields("generation_config.json");
    const auto found = fields.find("max_new_tokens");
    if (found == fields.end() || !found->second.is(Json::Kind::number)) {
        return std::nullopt;
    }
    return found->second.integer("max_new_tokens");
}

}  // namespace

// Reports mistakes before anything is read.
void Session::check_answer(const GenerateOptions& options, bool has_prompt) const {
    limit_of(options, model_->generation_config);
    Sampling::of(model_->generation_config, options.sampling);
    if (!has_prompt && reader_.tokens() == 0) {
        throw cache_error("nothing was read yet, nothing to go on from; give a prompt");
    }
}

void Session::start_answer(const GenerateOptions& options, Moment begin, const TokenIds* prompt) {
    const TextFacts& text = model_->manifest.text;
    Names stops = options.stop;
    stops.insert(stops.end(), text.stops.begin(), text.stops.end());
    auto answer = std::make_unique<Answer>(
        Sampling::of(model_->generation_config, options.sampling), std::move(stops));
    answer->limit = limit_of(options, model_->generation_config);
    const TokenIds& ends = options.ends ? *options.ends : text.ends;
    answer->ends = {ends.begin(), ends.end()};
    answer->seen.resize(static_cast<size_t>(model_->manifest.vocab_size));
    if (prompt != nullptr && answer->penalizes) {
        for (int32_t id : *prompt) {
            answer->seen[static_cast<size_t>(id)] = true;
        }
    }
    answer->epoch = ++reader_.epoch;
    answer->begin = begin;
    reader_.clock.first_token_seconds = -1;
    if (model_->tokenizer != nullptr) {
        // Control tokens alone are no context: a space behind them is one that begins a text.
        const TokenIds held = reader_.newest();
        bool begins = true;
        for (size_t i = held.size() > CONTEXT ? held.size() - CONTEXT : 0; i < held.size(); ++i) {
            begins = begins && model_->tokenizer->is_special(held[i]);
        }
        answer->decoder = std::make_unique<TextDecoder>(*model_->tokenizer, false, begins);
    }
    answer_ = std::move(answer);
}

void Session::start_text(std::optional<std::string_view> prompt, const GenerateOptions& options) {
    const Moment begin = std::chrono::steady_clock::now();
    check_answer(options, prompt.has_value());
    TokenIds ids;
    if (prompt) {
        if (prompt->empty()) {
            throw config_error("prompt is empty; give it at least one token");
        }
        Feeding how;
        how.asks = options.recall;
        read_text(*prompt, {how, options.prefix, options.plain, std::nullopt}, false);
        const Reading reading = options.plain ? Reading::PLAIN : Reading::MARKED;
        ids = model_->text().encode(*prompt, reading);  // for the penalty
    }
    start_answer(options, begin, prompt ? &ids : nullptr);
}

void Session::start_ids(const TokenIds& ids, const GenerateOptions& options) {
    const Moment begin = std::chrono::steady_clock::now();
    check_answer(options, true);
    FeedOptions feed;
    feed.how.asks = options.recall;
    feed_ids(ids, feed);
    start_answer(options, begin, &ids);
}

Answer& Session::answer() {
    if (answer_ == nullptr || answer_->epoch != reader_.epoch) {
        throw cache_error("no answer has begun, or another call has moved the session since; call "
                          "lcc_generate_start");
    }
    return *answer_;
}

std::optional<int32_t> Session::next_id() {
    Answer& answer = this->answer();
    if (answer.over || (answer.limit && answer.count >= *answer.limit)) {
        answer.over = true;
        return std::nullopt;
    }
    if (reader_.stop.exchange(false)) {
        throw Stopped();
    }
    const Moment start = std::chrono::steady_clock::now();
    reader_.read_pending();
    const int32_t id =
        answer.sampler(executor_.logits(), model_->manifest.vocab_size, answer.seen);
    reader_.add_pending(id);
    answer.seen[static_cast<size_t>(id)] = true;
    Clock& clock = reader_.clock;
    if (++answer.count == 1) {
        clock.first_token_seconds = seconds_since(answer.begin);
    } else {  // the first needs no step: its logits came with the prompt
        ++clock.decode_tokens;
        clock.decode_seconds += seconds_since(start);
    }
    answer.over = answer.ends.count(id) != 0;
    turn_.end = reader_.tokens();
    turn_.ended = answer.over ? std::optional<int32_t>(id) : std::nullopt;
    return id;
}

// What was held back of the text, when no more of it comes.
std::string Session::end_text() {
    Answer& answer = *answer_;
    answer.text_over = true;
    std::string rest = answer.stops.add(answer.decoder->end());
    return answer.stops.found() ? rest : rest + answer.stops.end();
}

const std::string* Session::next_piece() {
    const Tokenizer& tokenizer = model_->text();
    Answer& answer = this->answer();
    answer.piece.clear();
    while (!answer.text_over && answer.piece.empty()) {
        const std::optional<int32_t> id = next_id();
        if (!id || answer.ends.count(*id) != 0) {
            answer.piece = end_text();
            break;
        }
        answer.piece = answer.stops.add(answer.decoder->add(*id));
        if (!answer.stops.found() && tokenizer.is_special(*id)) {
            answer.piece += answer.stops.add(tokenizer.decode({*id}, true), false);
        }
        answer.text_over = answer.stops.found();
    }
    return answer.piece.empty() ? nullptr : &answer.piece;
}

const float* Session::next_logits() {
    reader_.read_pending();
    return executor_.logits();
}

}  // namespace lcc
